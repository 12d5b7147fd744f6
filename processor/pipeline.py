"""The way of every API request: who asks, faults, idempotency key, validation, effect, stored reply, answer."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
from starlette.requests import Request
from starlette.responses import Response

from processor import idempotency, intents
from processor.auth import account_of
from processor.context import Context, Listeners, working
from processor.database import UNREACHABLE, Pool
from processor.errors import Reply, StripeError, api_error, invalid_request, rate_limited
from processor.expand import expand, expansions
from processor.faults import STAGES, Fault, Faults, fault_from_header
from processor.forms import JSON, parse_form
from processor.idempotency import KeyUse, Saved
from processor.ids import new_id
from processor.server import Dropped

LARGEST_BODY = 256 * 1024
log = logging.getLogger("processor")

Work = Callable[[Context], Awaitable[Reply]]
Prepare = Callable[[JSON], Work]  # reads and checks parameters; what it raises is not stored under the key


class ConnectionDrop(Exception):
    """This request gets no answer: its connection is to be closed."""


@dataclass
class Call:
    """One request on its way."""

    operation: str
    kind: str  # what the reply is: payment_intent, charge, refund, payment_method
    intent_id: str | None
    listed: bool = False
    request_id: str = field(default_factory=lambda: new_id("req", 14))
    account: str = ""
    path: str = ""
    base_url: str = ""
    params: JSON = field(default_factory=dict)
    key: str | None = None
    header_fault: Fault | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class Pipeline:
    """Runs requests against one pool and one set of faults."""

    def __init__(self, pool: Pool, faults: Faults, public_url: str, outbox: Listeners) -> None:
        self.pool = pool
        self.outbox = outbox
        self.faults = faults
        self.public_url = public_url.rstrip("/")

    async def write(
        self, request: Request, operation: str, kind: str, prepare: Prepare, intent_id: str | None = None
    ) -> Response:
        """A POST: at most one effect a key."""
        return await self._handle(request, Call(operation, kind, intent_id), lambda call: self._write(call, prepare))

    async def read(
        self,
        request: Request,
        operation: str,
        kind: str,
        work: Callable[[Context, JSON], Awaitable[Reply]],
        intent_id: str | None = None,
    ) -> Response:
        """A GET."""
        call = Call(operation, kind, intent_id, listed=operation in ("list", "search"))

        async def run(call: Call) -> Reply:
            paths = expansions(call.params, kind, listed=call.listed)
            async with self._context(call) as context:
                reply = await work(context, call.params)
                reply = self._falsified(call, Reply(reply.status, await expand(context, reply.body, paths)))
                await context.flush()  # a card that is looked at is made by that
            await self._after(call)
            return reply

        return await self._handle(request, call, run)

    async def _handle(self, request: Request, call: Call, run: Callable[[Call], Awaitable[Reply | Saved]]) -> Response:
        result: Reply | Saved
        try:
            await self._open(request, call)
            await self._before(call)
            result = await run(call)
        except StripeError as error:
            result = await self._refusal(call, error)
        except ConnectionDrop:
            return Dropped()
        except asyncio.CancelledError:  # the process ends: the outcome is not known, so no answer is the honest one
            return Dropped()
        except UNREACHABLE:
            log.warning("the database did not answer (%s)", call.request_id, exc_info=True)
            result = api_error(503, saved=False).reply()
        except asyncpg.DataError:
            result = invalid_request("Invalid string: it cannot be stored.").reply()
        except Exception:
            log.exception("failed (%s)", call.request_id)
            result = api_error(saved=False).reply()
        return _response(request, call, result)

    async def _open(self, request: Request, call: Call) -> None:
        """Fill in the call from the request. Raises StripeError 401, or 400 for what cannot be decoded."""
        call.account = account_of(request.headers.get("authorization"))
        call.path = request.scope["path"]
        call.base_url = self.public_url or str(request.base_url).rstrip("/")
        if request.method == "POST":
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise StripeError(413, "invalid_request_error", "The request is too large.", saved=False)
            call.key = request.headers.get("idempotency-key")
            call.params = parse_form(_decoded(bytes(body)))
        else:
            call.params = parse_form(request.url.query)
        if header := request.headers.get("x-mock-fault"):
            call.header_fault = fault_from_header(header)
        if self.faults.reads_metadata:
            call.metadata = await self._subject(call)

    async def _write(self, call: Call, prepare: Prepare) -> Reply | Saved:
        use = idempotency.key_use(call.account, call.key, call.path, call.params) if call.key is not None else None
        try:
            reply = await self._effect(call, use, prepare)
        except StripeError as error:
            if not error.saved:
                raise
            return await self._keep_failure(call, use, await self._refusal(call, error))
        except (*UNREACHABLE, asyncpg.DataError):
            raise
        except Exception:
            log.exception("failed (%s)", call.request_id)
            return await self._keep_failure(call, use, api_error().reply())
        if isinstance(reply, Reply):
            await self._after(call)
        return reply

    async def _effect(self, call: Call, use: KeyUse | None, prepare: Prepare) -> Reply | Saved:
        """Claim the key, run, write effect and reply in one transaction."""
        async with self._context(call) as context:
            saved = await idempotency.claim(context, use) if use else None
            if saved:
                return saved
            work = prepare(call.params)
            paths = expansions(call.params, call.kind)
            await self._begun(call)
            reply = await work(context)
            held = call.operation == "confirm" and reply.body.get("status") == "requires_capture"
            if held and self._fires(call, "twin"):
                await intents.twin(context, reply.body)
            if reply.status == 200 and paths:
                reply = Reply(200, await expand(context, reply.body, paths))
            reply = self._falsified(call, reply)
            if self._fires(call, "reply"):
                reply = api_error().reply()
            if use:
                idempotency.save(context, use, reply, call.request_id)
            await context.flush()
            return replace(reply, text=context.encoded(reply.body))

    async def _keep_failure(self, call: Call, use: KeyUse | None, reply: Reply) -> Reply | Saved:
        """Nothing was written; the refusal is remembered, unless somebody else has used the key since."""
        if use is None:
            return reply
        async with self._context(call) as context:
            saved = await idempotency.claim(context, use)
            if saved:
                return saved
            idempotency.save(context, use, reply, call.request_id)
            await context.flush()
            return reply

    def _context(self, call: Call) -> AbstractAsyncContextManager[Context]:
        return working(
            self.pool, call.account, call.base_url, outbox=self.outbox, request_id=call.request_id, key=call.key
        )

    async def _refusal(self, call: Call, error: StripeError) -> Reply:
        """The error, with the intent that it is about: nearly every 400 on an intent's path carries it."""
        if call.intent_id and error.status == 400 and "payment_intent" not in error.error:
            try:
                async with self._context(call) as context:
                    error.error["payment_intent"] = await intents.load(context, call.intent_id)
            except (StripeError, *UNREACHABLE):
                log.debug("no intent to show in the error (%s)", call.request_id)
        return error.reply()

    async def _subject(self, call: Call) -> dict[str, str]:
        """The metadata of the intent that the call is about, for faults that are meant for one order."""
        given = call.params.get("metadata")
        own = {key: value for key, value in given.items() if isinstance(value, str)} if isinstance(given, dict) else {}
        stored: Any = await self.pool.fetchval(
            """
            SELECT metadata FROM processor.payment_intent WHERE account = $1 AND id = coalesce($2,
                (SELECT payment_intent FROM processor.charge WHERE id = $3 AND account = $1))
            """,
            call.account,
            call.intent_id or _text(call.params.get("payment_intent")),
            _text(call.params.get("charge")),
        )
        return {**(stored or {}), **own}

    def _fires(self, call: Call, stage: str) -> Fault | None:
        header = call.header_fault
        if header and STAGES[header.mode] == stage:
            return header
        return self.faults.take(stage, call.operation, call.account, call.metadata)

    def _falsified(self, call: Call, reply: Reply) -> Reply:
        """What a processor that is not to be trusted says of intents: one cent more than they are about."""
        intents_shown = reply.body.get("object") == "payment_intent" or (call.kind == "payment_intent" and call.listed)
        if not intents_shown or not self._fires(call, "amount"):
            return reply
        if call.listed:
            return Reply(reply.status, {**reply.body, "data": [_dearer(intent) for intent in reply.body["data"]]})
        return Reply(reply.status, _dearer(reply.body))

    async def _before(self, call: Call) -> None:
        fault = self._fires(call, "before")
        if fault is None:
            return
        if fault.mode == "error_429":
            raise rate_limited()
        if fault.mode.startswith("error_"):
            raise api_error(int(fault.mode.removeprefix("error_")), saved=False)
        if fault.mode != "drop":
            await asyncio.sleep(fault.seconds)
        if fault.mode in ("drop", "silent"):
            raise ConnectionDrop

    async def _begun(self, call: Call) -> None:
        fault = self._fires(call, "begun")
        if fault is None:
            return
        if fault.mode == "error_500_stored":
            raise api_error()
        await asyncio.sleep(fault.seconds)

    async def _after(self, call: Call) -> None:
        fault = self._fires(call, "after")
        if fault is None:
            return
        if fault.mode == "reply_lost":
            raise ConnectionDrop
        await asyncio.sleep(fault.seconds)


def _dearer(intent: JSON) -> JSON:
    amounts = ("amount", "amount_capturable", "amount_received")
    return {**intent, **{name: intent[name] + 1 for name in amounts if intent[name]}}


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise invalid_request("Invalid request: the body is not UTF-8.") from None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _response(request: Request, call: Call, result: Reply | Saved) -> Response:
    headers = {"Request-Id": call.request_id}
    if request.method == "POST":
        headers["Original-Request"] = result.request_id if isinstance(result, Saved) else call.request_id
        if call.key is not None:
            headers["Idempotency-Key"] = call.key
    if version := request.headers.get("stripe-version"):
        headers["Stripe-Version"] = version
    if isinstance(result, Saved):
        headers["Idempotent-Replayed"] = "true"
        if 400 <= result.status < 500:
            headers["Stripe-Should-Retry"] = "false"
        return Response(result.body, result.status, headers, "application/json")
    return Response(
        result.text or json.dumps(result.body), result.status, {**headers, **result.headers}, "application/json"
    )
