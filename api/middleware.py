"""The frame of every request, as plain ASGI: ids, trace, limits, headers, metrics, access log, unexpected errors."""

import asyncio
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from loguru import logger
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem, problem_of
from api.metrics import IN_PROGRESS, STREAMS, observe_request
from api.recent import RecentAnswer, RecentAnswers
from core.settings import Settings
from core.telemetry import trace_id_under, unrecorded_span

MAX_HEADER_BYTES = 32 * 1024
DRAIN_BYTES = 1024 * 1024
DRAIN_SECONDS = 1.0
UNMATCHED = "unmatched"  # never the raw path: strangers would fill the metrics with theirs
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROPAGATOR = TraceContextTextMapPropagator()

# /docs loads its script and style from this server and nothing from elsewhere
CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class RequestFrame:
    """Outermost of ours: whatever happens inside, the caller gets a problem document with the trace id.

    Every request pays for what is done here, so headers are read once, as the raw pairs they come in.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"content-security-policy", CONTENT_SECURITY.encode()),
            (b"x-frame-options", b"DENY"),
        ]
        if settings.public_url.startswith("https://"):
            self._headers.append((b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
        self._recent = RecentAnswers(self._headers)
        self._records_spans = bool(settings.otlp_endpoint)
        # whether a span or a line of the access log tells of reads that went well
        self._tells_of_reads = self._records_spans or settings.log_level.upper() in ("TRACE", "DEBUG")
        self._tracer = trace.get_tracer("mercato.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = _read_head(scope)
        recent = self._recent.find(scope) if head.plain else None
        if recent is not None and not self._tells_of_reads:
            await self._give(recent, head, send)
        elif self._records_spans:
            with self._tracer.start_as_current_span(scope["method"], head.parent, SpanKind.SERVER) as span:
                await self._answer(scope, receive, send, span, head, recent)
        else:
            span = unrecorded_span(head.parent)
            token = attach(trace.set_span_in_context(span, head.parent))
            try:
                await self._answer(scope, receive, send, span, head, recent)
            finally:
                detach(token)

    async def _give(self, recent: RecentAnswer, head: "_Head", send: Send) -> None:
        """Nothing runs in between that would have to know which request it belongs to, or that could fail."""
        started = perf_counter()
        start, body = recent.messages(head.if_none_match, _ids(head.request_id, trace_id_under(head.parent)))
        await send(start)
        await send(body)
        observe_request("GET", recent.route_path, start["status"], perf_counter() - started)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        span: trace.Span,
        head: "_Head",
        recent: RecentAnswer | None,
    ) -> None:
        ids = _ids(head.request_id, span.get_span_context().trace_id)
        exchange = _Exchange(send, [*self._headers, *ids])
        IN_PROGRESS.inc()
        with logger.contextualize(request_id=head.request_id):
            try:
                if recent is None:
                    await self._run(scope, receive, exchange)
                else:
                    scope["route"] = recent.route
                    for message in recent.messages(head.if_none_match, ids):
                        await exchange.send(message)
            finally:
                IN_PROGRESS.dec()
                _account(scope, exchange, span)

    async def _run(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            response = problem_of(Request(scope), error)
            if not exchange.status:
                await response(scope, receive, exchange.send)
            # else the answer is under way already: logged, and the server cuts the connection short
            elif not exchange.complete:
                raise
        else:
            self._recent.learn(scope)


@dataclass(frozen=True, slots=True)
class _Head:
    """What the frame needs of the request's headers. `parent`: None without `traceparent`, and then the trace is that
    of the caller, for calls in process. `plain`: no body and not too large, so that SizeLimit would let it pass."""

    request_id: str
    parent: Context | None
    if_none_match: bytes | None
    plain: bool


def _read_head(scope: Scope) -> _Head:
    given, traced, if_none_match, body, size = "", False, None, False, 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"x-request-id":
            given = value.decode("latin-1")
        elif name == b"traceparent":
            traced = True
        elif name == b"if-none-match":
            if_none_match = value
        elif name in (b"content-length", b"transfer-encoding"):
            body = True
    return _Head(
        given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex(),
        _PROPAGATOR.extract(Headers(scope=scope)) if traced else None,
        if_none_match,
        not body and size <= MAX_HEADER_BYTES,
    )


def _ids(request_id: str, trace_id: int) -> list[tuple[bytes, bytes]]:
    return [(b"x-request-id", request_id.encode()), (b"x-trace-id", b"%032x" % trace_id)]


class _Exchange:
    """What has been sent so far; adds the headers that every response bears."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.started = perf_counter()
        self.answered = self.started
        self.status = 0
        self.streams = False
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answered = perf_counter()
            self._complete_headers(message)
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    def _complete_headers(self, message: Message) -> None:
        # runs with every request: on the raw pairs, names are lower case in ASGI
        given = dict(message["headers"])
        headers = [*message["headers"], *(pair for pair in self._headers if pair[0] not in given)]
        if b"cache-control" not in given and b"etag" not in given:
            headers.append((b"cache-control", b"no-store"))  # personal unless the route says otherwise
        message["headers"] = headers
        if given.get(b"content-type", b"").startswith(b"text/event-stream"):
            self.streams = True
            STREAMS.inc()


def _account(scope: Scope, exchange: _Exchange, span: trace.Span) -> None:
    route = getattr(scope.get("route"), "path", UNMATCHED)
    method, status = scope["method"], exchange.status or 499  # 499: nobody was told
    if exchange.streams:
        STREAMS.dec()
    # a stream lasts as long as its reader likes: what counts is how soon it began
    ended = exchange.answered if exchange.streams else perf_counter()
    seconds = ended - exchange.started
    observe_request(method, route, status, seconds)
    if span.is_recording():
        span.update_name(f"{method} {route}")
        span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "url.path": scope["path"],
                "http.response.status_code": status,
            }
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
    # reads that went well are counted by the metrics; a line for each would bury the rest
    level = "DEBUG" if status < 400 and method in ("GET", "HEAD") else "INFO"
    logger.log(level, "{} {} {} in {:.1f} ms", method, route, status, seconds * 1000)


class SizeLimit:
    """413 for a body over `limit` bytes, announced or not, before more than that is held in memory; 431 for headers."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size, announced = 0, b"0"
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"content-length":
                announced = value
        if size > MAX_HEADER_BYTES:
            await self._refuse(431, "headers_too_large", "The headers are too large.", scope, receive, send)
            return
        if not announced.isdigit() or int(announced[:20]) > self._limit:
            if "expect" not in Headers(scope=scope):  # who asks first has not sent it yet
                await _drain(receive)
            await self._refuse(413, "body_too_large", self._detail(), scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                if message.get("more_body"):
                    await _drain(receive)
                # FastAPI lets an HTTPException through while it reads the body
                raise HTTPException(413, self._detail(), headers={"Connection": "close"})
            return message

        await self._app(scope, counted, send)

    async def _refuse(self, status: int, code: str, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Connection": "close"}
        await problem(status, code, detail, instance=scope["path"], headers=headers)(scope, receive, send)

    def _detail(self) -> str:
        return f"The body may hold {self._limit // 1024} KB at most."


async def _drain(receive: Receive) -> None:
    """Throw away what is being sent, a while and within measure: a connection closed with unread bytes on it is reset,
    and the sender would see that instead of our answer."""
    left = DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
