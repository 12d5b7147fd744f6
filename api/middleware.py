"""The frame of every request, as plain ASGI: ids, trace, limits, headers, metrics, access log, unexpected errors."""

import asyncio
import os
import re
from contextlib import suppress
from time import perf_counter

from loguru import logger
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem, problem_of
from api.metrics import IN_PROGRESS, STREAMS, observe_request
from core.settings import Settings
from core.telemetry import unrecorded_span

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
        self._records_spans = bool(settings.otlp_endpoint)
        self._tracer = trace.get_tracer("mercato.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given, traced = "", False
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value.decode("latin-1")
            elif name == b"traceparent":
                traced = True
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        # without a header: the caller's own span, for calls in process
        parent = _PROPAGATOR.extract(Headers(scope=scope)) if traced else None
        if self._records_spans:
            with self._tracer.start_as_current_span(scope["method"], parent, SpanKind.SERVER) as span:
                await self._answer(scope, receive, send, span, request_id)
        else:
            span = unrecorded_span(parent)
            token = attach(trace.set_span_in_context(span, parent))
            try:
                await self._answer(scope, receive, send, span, request_id)
            finally:
                detach(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: trace.Span, request_id: str) -> None:
        ids = [(b"x-request-id", request_id.encode()), (b"x-trace-id", _trace_id(span).encode())]
        exchange = _Exchange(send, self._headers + ids)
        IN_PROGRESS.inc()
        with logger.contextualize(request_id=request_id):
            try:
                await self._run(scope, receive, exchange)
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


def _trace_id(span: trace.Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


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
