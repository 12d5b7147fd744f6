"""What `/openapi.json` adds to FastAPI's own: problem documents with examples, and who may call what."""

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from api.auth import authenticate, authenticate_if_any, require_admin, require_staff
from api.errors import MEDIA_TYPE

DESCRIPTION = """Browse, fill a cart, place an order, watch it confirm.

Errors are `application/problem+json` with a stable `code` and the `traceId` to name to support. Money is
`{amount, currency}` in minor units. Placing, paying and cancelling need an `Idempotency-Key`: after a 503 or a lost
answer send the same request with the same key again."""

TAGS = [
    {"name": "users", "description": "Accounts and sessions"},
    {"name": "catalog", "description": "Products, categories, stock"},
    {"name": "carts", "description": "One cart a shopper; guests have one by cookie"},
    {"name": "orders", "description": "Placing, paying, cancelling, and following along by Server-Sent Events"},
    {"name": "payments", "description": "What was charged"},
    {"name": "notifications", "description": "What a shopper was told"},
    {"name": "operations", "description": "Health and metrics"},
]

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details; some codes add fields of their own.",
    "required": ["type", "title", "status", "detail", "instance", "code", "traceId"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The path that was asked for"},
        "code": {"type": "string", "description": "Stable; decide by this"},
        "traceId": {"type": ["string", "null"], "description": "Also in the header X-Trace-Id and in our logs"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message", "code"],
                "properties": {name: {"type": "string"} for name in ("field", "message", "code")},
            },
        },
    },
}

# status: (code, detail) of the example
_EXAMPLES = {
    400: ("idempotency_key_required", "Send an Idempotency-Key."),
    401: ("unauthenticated", "Sign in first."),
    402: ("payment_declined", "The card was declined."),
    403: ("forbidden", "This needs another role."),
    404: ("not_found", "There is nothing here."),
    409: ("conflict", "The present state does not allow this."),
    413: ("body_too_large", "The body may hold 256 KB at most."),
    422: ("validation_error", "The request is not valid."),
    429: ("too_many_requests", "Try again later."),
    503: ("dependency_unavailable", "Something this needs cannot be reached right now."),
}
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "For programs"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "mercato_access", "description": "For browsers"},
}
CREDENTIAL_PATHS = ("/api/auth/login", "/api/auth/refresh")
MAILED_TOKEN_PATHS = ("/api/auth/reset-password", "/api/auth/verify")
_ASKING = {authenticate, authenticate_if_any}
_SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"cookie": []}]


def install_openapi(app: FastAPI, elsewhere: Sequence[BaseRoute] = ()) -> None:
    """Replace the app's schema maker by one that knows our errors; made once, when first asked for.

    `elsewhere` are routes that other processes serve: behind one gateway the API is one, whoever describes it.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, [*app.routes, *elsewhere])
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, routes: list[BaseRoute]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=routes, tags=list(TAGS)
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    components["responses"] = {f"Problem{status}": _problem_response(status) for status in _EXAMPLES}
    components["securitySchemes"] = _SECURITY_SCHEMES
    for route in iter_route_contexts(routes):
        operations = document["paths"].get(route.path or "", {})
        for method in route.methods or ():
            if (operation := operations.get(method.lower())) is not None:
                _complete(operation, method, route.path or "", _guards(getattr(route, "dependant", None)))
    return document


def _complete(operation: dict[str, Any], method: str, path: str, guards: set[Callable[..., Any]]) -> None:
    if authenticate_if_any in guards:
        operation["security"] = [*_SIGNED_IN, {}]
    elif authenticate in guards:
        operation["security"] = _SIGNED_IN
    responses = operation.setdefault("responses", {})
    for status in sorted(_possible(operation, method, path, guards)):
        declared = responses.get(str(status))
        if declared is None or _is_default_422(declared):
            responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}


def _possible(operation: dict[str, Any], method: str, path: str, guards: set[Callable[..., Any]]) -> Iterator[int]:
    if not path.startswith("/api/"):
        return
    yield 503
    if guards & _ASKING or path in CREDENTIAL_PATHS:
        yield 401
    if path.endswith(("/place", "/payment")):
        yield 402
    # unsafe methods: also a cookie from elsewhere, or somebody else's userId
    if guards & {require_staff, require_admin} or (method != "GET" and (guards & _ASKING or path in CREDENTIAL_PATHS)):
        yield 403
    if "{" in path:
        yield 404
    if "requestBody" in operation:
        yield 413
    if "requestBody" in operation or operation.get("parameters"):
        yield 422
    if method != "GET":
        yield 409
        yield 429
    if any(parameter["name"].lower() == "idempotency-key" for parameter in operation.get("parameters", [])):
        yield 400
    if path in MAILED_TOKEN_PATHS:
        yield 400


def _guards(dependant: Dependant | None) -> set[Callable[..., Any]]:
    """Everything the route depends on, directly or through others."""
    if dependant is None:
        return set()
    found = {inner.call for inner in dependant.dependencies if inner.call is not None}
    return found.union(*(_guards(inner) for inner in dependant.dependencies))


def _is_default_422(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema.get("$ref", "").endswith("/HTTPValidationError"))


def _problem_response(status: int) -> dict[str, Any]:
    code, detail = _EXAMPLES[status]
    title = HTTPStatus(status).phrase
    example: dict[str, Any] = {
        "type": f"urn:mercato:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/api/…",
        "code": code,
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    if status == 422:
        example["errors"] = [
            {"field": "quantity", "message": "Input should be greater than or equal to 1", "code": "greater_than_equal"}
        ]
    response: dict[str, Any] = {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return response
