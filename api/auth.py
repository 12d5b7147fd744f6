"""Who calls? Every route says so: CurrentUser, StaffUser, AdminUser, OptionalUser, ServiceCaller or Open.

Programs send `Authorization: Bearer`, browsers a cookie; the header goes first. A token is good when its signature is,
and its session has not been ended: Valkey knows the sessions ended lately, and the users service answers for it when
Valkey is gone or has just come back empty. Neither to be had: 503.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Request

from api.deps import Resources, get_resources
from api.routing import PARSED
from core.settings import Settings
from models.errors import Forbidden, NotFound, Unauthenticated
from models.types import Role
from services import revocations

SERVICE_HEADER = "X-Mercato-Service"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Principal:
    """A signed-in person. The token carries no address, so `email` is known to the users service only."""

    user_id: UUID
    session_id: UUID
    role: Role
    email: str | None = None


async def authenticate(request: Request) -> Principal:
    """The caller, or Unauthenticated; Forbidden (`bad_origin`) for a cookie sent from another site's page;
    Unavailable when nobody can say whether the session still stands. Checked once a request."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is None:
        resources = get_resources(request)
        claims = await resources.tokens.verify(_token_of(request, resources.settings))
        known = Principal(claims.user_id, claims.session_id, claims.role)
        if not await session_alive(resources, known):
            raise Unauthenticated("This session has ended.")
        _refuse_other_user(request, known)
        request.state.principal = known
    return known


async def session_alive(resources: Resources, principal: Principal) -> bool:
    """Whether the session has not been ended; raises Unavailable when neither Valkey nor the users service answers."""
    revoked = await revocations.is_revoked(resources.redis, principal.session_id)
    if revoked is not None:
        return not revoked
    return await resources.users.session_active(principal.session_id)


async def authenticate_if_any(request: Request) -> Principal | None:
    """None for a guest. A token that is sent must be good: a bad one is still Unauthenticated."""
    if _carries_token(request, get_resources(request).settings):
        return await authenticate(request)
    _refuse_other_user(request, None)
    return None


def _require(allowed: Callable[[Role], bool]) -> Callable[[Principal], Awaitable[Principal]]:
    async def check(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
        if not allowed(principal.role):
            raise Forbidden("This needs another role.")
        return principal

    return check


async def authenticate_service(request: Request) -> None:
    """Calls between services; to anybody else an internal route does not exist."""
    expected = service_credential(get_resources(request).settings)
    if not hmac.compare_digest(request.headers.get(SERVICE_HEADER, "").encode(), expected.encode()):
        raise NotFound("There is nothing here.")


async def open_to_all() -> None:
    """Marks a route that is meant for everybody, so that a forgotten check can be told from a wanted one."""


require_staff = _require(lambda role: role.is_staff)
require_admin = _require(lambda role: role is Role.ADMIN)

CurrentUser = Annotated[Principal, Depends(authenticate)]
StaffUser = Annotated[Principal, Depends(require_staff)]
AdminUser = Annotated[Principal, Depends(require_admin)]
OptionalUser = Annotated[Principal | None, Depends(authenticate_if_any)]
ServiceCaller = Annotated[None, Depends(authenticate_service)]
Open = Depends(open_to_all)  # for `dependencies=[Open]`

GUARDS: frozenset[Callable[..., object]] = frozenset(
    {authenticate, require_staff, require_admin, authenticate_if_any, authenticate_service, open_to_all}
)


def _refuse_other_user(request: Request, principal: Principal | None) -> None:
    """A `userId` in a body or query, as clients of the earlier platform send it, must be the caller's own: Forbidden.

    Here and not in the routes, because 403 comes before what is said of the idempotency key and of the body.
    """
    body = request.scope.get(PARSED)
    claims = [*request.query_params.getlist("userId"), body.get("userId") if isinstance(body, dict) else None]
    own = str(principal.user_id) if principal else None
    if any(isinstance(claim, str) and claim.lower() != own for claim in claims):
        raise Forbidden("This is somebody else's userId.")


def service_credential(settings: Settings) -> str:
    return hmac.new(settings.secret_key.get_secret_value().encode(), b"service", hashlib.sha256).hexdigest()


def access_cookie_name(settings: Settings) -> str:
    """`__Host-` binds it to this host over TLS; a browser would drop such a cookie in development without TLS."""
    return "__Host-mercato_access" if settings.environment == "production" else "mercato_access"


def check_origin(request: Request, settings: Settings) -> None:
    """A browser's unsafe request must come from our own pages: Forbidden otherwise.

    Browsers always tell (Origin, or Sec-Fetch-Site), and pages cannot make them keep quiet; who sends neither is a
    program with a cookie jar, which no other site's page can use.
    """
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("Origin")
    if origin is None:
        same = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    else:
        same = origin == _origin_of(settings.public_url) or (
            # TLS ends before us, so the scheme is the proxy's business; the host is not
            origin.partition("://")[2] == request.headers.get("Host")
        )
    if not same:
        raise Forbidden("A signed-in browser may only send this from our own pages.", code="bad_origin")


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _carries_token(request: Request, settings: Settings) -> bool:
    return "Authorization" in request.headers or access_cookie_name(settings) in request.cookies


def _token_of(request: Request, settings: Settings) -> str:
    header = request.headers.get("Authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Send the access token as `Authorization: Bearer …`.")
        return token.strip()
    cookie = request.cookies.get(access_cookie_name(settings))
    if not cookie:
        raise Unauthenticated("Sign in first.")
    check_origin(request, settings)
    return cookie
