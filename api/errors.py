"""Every error leaves as `application/problem+json` (RFC 9457) with a stable `code` and the trace id."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from loguru import logger
from pydantic.alias_generators import to_camel
from redis.exceptions import RedisError
from sqlalchemy import exc as sa
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from core.telemetry import current_trace_id
from models.errors import InvalidRequest, MercatoError, NotFound, Unavailable

MEDIA_TYPE = "application/problem+json"
MALFORMED = "mercato.malformed_json"  # set in the scope by api.routing

HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    431: "headers_too_large",
}
TRANSIENT_RPC = {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED}
# connection, resources, operator intervention (also: statement timeout), lock not available, deadlock, serialization,
# refused log-ins, a database that is not there, and one that only reads (a replica, while another one takes over)
TRANSIENT_SQLSTATES = ("08", "53", "57", "55P03", "40", "28", "3D000", "25P03", "25006")
BAD_DATA_SQLSTATE = "22"


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """A problem document as a response; `extra` fields stand beside the standard ones and never replace them."""
    document = {to_camel(key): _plain(value) for key, value in (extra or {}).items()} | {
        "type": f"urn:mercato:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "traceId": current_trace_id(),
    }
    if errors is not None:
        document["errors"] = list(errors)
    # what a client sent is never repeated, but its keys are (`errors.field`): keep them printable
    body = json.dumps(document, default=str).encode()
    return Response(body, status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(request: Request, error: BaseException) -> Response:
    """The answer to any error that left a route; what is not expected is logged with its stack and answered 500."""
    if isinstance(error, RequestValidationError):
        return _invalid(request, error)
    if isinstance(error, HTTPException):
        return _http(request, error)
    known = error if isinstance(error, MercatoError) else translate(error)
    if known is None:
        logger.opt(exception=error).error("Unexpected error: {}", type(error).__name__)
        return problem(500, "internal_error", "Something went wrong on our side.", instance=request.url.path)
    if known.status >= 500:
        cause = error if known is not error else (error.__cause__ or error)
        logger.warning("{}: {}: {}", known.code, type(cause).__name__, cause)
    return problem(
        known.status, known.code, known.detail, instance=request.url.path, headers=_headers(known), extra=known.extra
    )


def install_error_handlers(app: FastAPI) -> None:
    """The errors that routes raise on purpose; api.middleware catches all others."""
    for kind in (MercatoError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return problem_of(request, error)


def translate(error: BaseException) -> MercatoError | None:
    """What a failure below means to the caller: Unavailable, InvalidRequest, or None for a bug of ours."""
    if isinstance(error, sa.DBAPIError):
        return _of_database(error)
    if isinstance(error, asyncpg.DataError):
        return InvalidRequest("A value is outside of what can be stored.")
    if isinstance(error, RPCError):
        return Unavailable("Temporal cannot be reached.") if error.status in TRANSIENT_RPC else None
    if isinstance(error, WorkflowUpdateRPCTimeoutOrCancelledError):
        return Unavailable("Temporal did not answer in time.")
    if isinstance(error, sa.TimeoutError | asyncpg.InterfaceError | RedisError | httpx.TransportError):
        return Unavailable("Something this needs cannot be reached right now.")
    if isinstance(error, asyncpg.PostgresError):
        return _of_sqlstate(getattr(error, "sqlstate", None) or "")
    if isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.filename is None):
        return Unavailable("Something this needs cannot be reached right now.")
    return None


def _of_database(error: sa.DBAPIError) -> MercatoError | None:
    below: BaseException | None = error.orig
    while below is not None:
        # asyncpg's client-side DataError ("value out of int64 range") is an InterfaceError too: look for it first
        if isinstance(below, asyncpg.DataError):
            return InvalidRequest("A value is outside of what can be stored.")
        if sqlstate := getattr(below, "sqlstate", None):
            return _of_sqlstate(sqlstate)
        below = below.__cause__
    if error.connection_invalidated or isinstance(error, sa.OperationalError | sa.InterfaceError):
        return Unavailable("The database cannot be reached right now.")
    return None


def _of_sqlstate(sqlstate: str) -> MercatoError | None:
    if sqlstate.startswith(TRANSIENT_SQLSTATES):
        return Unavailable("The database is busy or cannot be reached right now.")
    if sqlstate.startswith(BAD_DATA_SQLSTATE):
        return InvalidRequest("A value is outside of what can be stored.")
    return None


def _headers(error: MercatoError) -> dict[str, str]:
    headers = dict(error.headers)
    if "orderId" in error.extra:
        headers.setdefault("Location", f"/api/orders/{error.extra['orderId']}")
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="mercato"'
    return headers


def _http(request: Request, error: HTTPException) -> Response:
    try:
        phrase = HTTPStatus(error.status_code).phrase
    except ValueError:
        phrase = "Error"
    code = HTTP_CODES.get(error.status_code) or phrase.lower().replace(" ", "_")
    detail = {404: "There is nothing here.", 405: "This method is not allowed here."}.get(
        error.status_code, str(error.detail)
    )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    return problem(error.status_code, code, detail, instance=request.url.path, headers=headers)


def _methods_at(request: Request) -> set[str]:
    """Every method of the path: the router names those of the first route that it meets only."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path_regex.match(request.url.path):
            methods |= route.methods or set()
    return methods


def _invalid(request: Request, error: RequestValidationError) -> Response:
    path = request.url.path
    errors = error.errors()
    if any(item["loc"][:1] == ("path",) for item in errors):
        missing = NotFound("There is nothing here.")  # an id that cannot exist names nothing
        return problem(missing.status, missing.code, missing.detail, instance=path)
    if request.scope.get(MALFORMED):
        return problem(422, "malformed_json", "The body is not valid JSON, or holds a null character.", instance=path)
    if isinstance(error.body, bytes) and any(item["loc"] == ("body",) for item in errors):
        return problem(415, "unsupported_media_type", "Send the body as application/json.", instance=path)
    fields = [{"field": _pointer(item["loc"]), "message": _message(item), "code": str(item["type"])} for item in errors]
    return problem(422, "validation_error", "The request is not valid.", instance=path, errors=fields)


def _pointer(location: Sequence[Any]) -> str:
    """`("body", "lines", 0, "productId")` as `lines.0.productId`; a parameter by its name."""
    parts = [str(part) for part in location[1:]] or [str(part) for part in location]
    return ".".join(part[:64] for part in parts)


def _message(item: Mapping[str, Any]) -> str:
    """The validator's sentence; those of our own validators come without pydantic's prefix."""
    return str(item["msg"]).removeprefix("Value error, ")


def _plain(value: Any) -> Any:
    """Extras as JSON: pydantic models by their camelCase names."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
