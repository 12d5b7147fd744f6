"""HTTP of the users service. See services/users.py for what may and may not be learnt from an answer."""

from collections.abc import Collection, Coroutine
from typing import Annotated, Any, cast
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from fastapi import Depends, Request, Response
from pydantic import AfterValidator, Field, StringConstraints

from api.auth import CurrentUser, Open, OptionalUser, ServiceCaller, access_cookie_name, check_origin
from api.deps import Resources, ResourcesDep, UsersSession
from api.guests import hand_over_cart
from api.limits import forgive, limit
from api.routing import Router
from api.shapes import RequestModel, ResponseModel
from api.tokens import TokenSigner, make_signer
from core.db import Sessions
from core.settings import Settings
from models.errors import InvalidRequest, Unauthenticated
from models.types import Role, Service
from services import mails, revocations, sessions, users

router = Router(tags=["users"])


def _address(value: str) -> str:
    try:
        # test_environment: `.test` and `example.com` are addresses that nobody owns, which development needs
        return validate_email(value, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError("not an e-mail address") from error


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


Email = Annotated[str, Field(max_length=320), AfterValidator(_address)]
FullName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_printable)
]
NewPassword = Annotated[str, Field(min_length=8, max_length=256)]
GivenPassword = Annotated[str, Field(max_length=1024)]  # an old one may break today's rules, then it is just wrong
Token = Annotated[str, Field(max_length=2048)]


class RegisterRequest(RequestModel):
    email: Email
    password: NewPassword
    full_name: FullName


class LoginRequest(RequestModel):
    email: Annotated[str, Field(max_length=320)]
    password: GivenPassword


class RefreshRequest(RequestModel):
    refresh_token: Token | None = None


class ForgotRequest(RequestModel):
    email: Email


class ResetRequest(RequestModel):
    token: Token
    password: NewPassword


class VerifyRequest(RequestModel):
    token: Token


class ProfileChange(RequestModel):
    """What is left out stays. A new `email` or `password` needs `currentPassword`."""

    full_name: FullName | None = None
    email: Email | None = None
    password: NewPassword | None = None
    current_password: GivenPassword | None = None


class FindRequest(RequestModel):
    email: Annotated[str, Field(max_length=320)]


class AcceptedResponse(ResponseModel):
    status: str = "accepted"


class LoginResponse(ResponseModel):
    """`expiresIn` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    user_id: UUID


class ProfileResponse(ResponseModel):
    user_id: UUID
    email: str
    full_name: str
    role: Role


async def from_our_pages(request: Request, resources: ResourcesDep) -> None:
    """No other site may sign a browser in or out; programs send no Origin."""
    if "Origin" in request.headers:
        check_origin(request, resources.settings)


def _limited(name: str, times: int, seconds: int, *, account: int | None = None) -> list[Any]:
    """Open to everybody, limited by address and, with `account`, by the e-mail address in the body."""
    guards = [Open, Depends(from_our_pages), Depends(limit(name, times, seconds))]
    return guards if account is None else [*guards, Depends(limit(name, account, seconds, by="account"))]


@router.post("/api/auth/register", status_code=201, dependencies=_limited("register", 60, 60, account=10))
async def register(body: RegisterRequest, resources: ResourcesDep) -> AcceptedResponse:
    """Make an account. The answer is the same when the address has one already; its owner gets a mail."""
    await users.register(_database(resources), body.email, body.password, body.full_name)
    return AcceptedResponse()


@router.post("/api/auth/login", dependencies=_limited("login", 120, 60, account=10))
async def login(request: Request, body: LoginRequest, resources: ResourcesDep, response: Response) -> LoginResponse:
    """Open a session; a guest's cart comes along. Ten wrong passwords a minute and account are refused with 429."""
    signed_in = await users.login(_database(resources), resources.settings, body.email, body.password)
    await forgive(resources, "login", body.email)
    await hand_over_cart(request, resources, response, signed_in.user_id)
    return _hand_over(resources, response, signed_in)


@router.post("/api/auth/refresh", dependencies=_limited("refresh", 120, 60))
async def refresh(
    request: Request, resources: ResourcesDep, response: Response, body: RefreshRequest | None = None
) -> LoginResponse:
    """Trade the refresh token (body, or cookie) for new tokens. An old one coming again ends the session."""
    token = _refresh_token(request, resources.settings, body)
    if token is None:
        raise Unauthenticated("Send the refresh token.")
    async with _database(resources).begin() as session:
        outcome = await sessions.rotate(session, resources.settings, token)
    if isinstance(outcome, sessions.Reused):
        await _announce(resources, [outcome.session_id])
        raise Unauthenticated("This refresh token was used before; the session has been ended.", code="token_reused")
    return _hand_over(resources, response, outcome)


@router.post("/api/auth/logout", status_code=204, dependencies=[Depends(from_our_pages)])
async def logout(
    request: Request,
    caller: OptionalUser,
    resources: ResourcesDep,
    response: Response,
    body: RefreshRequest | None = None,
) -> None:
    """End this session, told by its access token or, when that has expired, by its refresh token."""
    session_id = caller.session_id if caller else None
    async with _database(resources).begin() as session:
        if session_id is None:
            token = _refresh_token(request, resources.settings, body)
            session_id = await sessions.session_of(session, resources.settings, token) if token else None
        if session_id is None:
            raise Unauthenticated("There is no session to end.")
        await sessions.end(session, session_id)
    await _announce(resources, [session_id])
    _drop_cookies(resources.settings, response)


@router.post("/api/auth/forgot-password", status_code=202, dependencies=_limited("forgot", 20, 60, account=5))
async def forgot_password(body: ForgotRequest, session: UsersSession) -> AcceptedResponse:
    """Mail a token for a new password to this address, if it has an account."""
    await users.forgot_password(session, body.email)
    return AcceptedResponse()


@router.post("/api/auth/reset-password", status_code=204, dependencies=_limited("reset", 20, 60))
async def reset_password(body: ResetRequest, resources: ResourcesDep) -> None:
    """Set a new password with a mailed token (once, within the hour); ends all sessions."""
    async with _database(resources).begin() as session:
        ended = await users.reset_password(session, resources.settings, body.token, body.password)
    await _announce(resources, ended)


@router.post("/api/auth/verify", status_code=204, dependencies=_limited("verify", 20, 60))
async def verify(body: VerifyRequest, resources: ResourcesDep) -> None:
    """Prove an e-mail address with a mailed token."""
    async with _database(resources).begin() as session:
        ended = await users.verify(session, resources.settings, body.token)
    await _announce(resources, ended)


@router.get("/api/auth/profile")
async def read_profile(caller: CurrentUser, session: UsersSession) -> ProfileResponse:
    return _profile(await users.profile(session, caller.user_id))


@router.patch("/api/auth/profile", dependencies=[Depends(limit("profile", 10, 60, by="user"))])
async def change_profile(caller: CurrentUser, body: ProfileChange, resources: ResourcesDep) -> ProfileResponse:
    """A new password ends all sessions, this one too. A new address ends the others; where addresses must be
    verified it takes effect with the token mailed to it."""
    database, settings = _database(resources), resources.settings
    confirmed = await _confirmed(database, caller.user_id, body)
    ended: list[UUID] = []
    async with database.begin() as session:
        if body.full_name is not None:
            await users.rename(session, caller.user_id, body.full_name)
        if body.email is not None:
            ended += await users.change_email(
                session, settings, caller.user_id, confirmed, body.email, caller.session_id
            )
        if body.password is not None:
            ended += await users.change_password(session, settings, caller.user_id, confirmed, body.password)
        profile = await users.profile(session, caller.user_id)
    await _announce(resources, ended)
    return _profile(profile)


@router.get("/api/auth/.well-known/jwks.json", dependencies=[Open])
@router.get("/internal/users/keys", include_in_schema=False, dependencies=[Open])
async def keys(resources: ResourcesDep) -> dict[str, Any]:
    """The public keys that access tokens are signed with."""
    return _signer(resources).jwks


@router.get("/internal/users/sessions/{session_id}", include_in_schema=False)
async def session_state(_caller: ServiceCaller, session_id: UUID, session: UsersSession) -> dict[str, bool]:
    return {"active": await sessions.is_active(session, session_id)}


@router.post("/internal/users/find", include_in_schema=False)
async def find(_caller: ServiceCaller, body: FindRequest, session: UsersSession) -> dict[str, UUID | None]:
    """Whose e-mail address this is; what is no address is nobody's."""
    try:
        return {"userId": await users.id_of(session, _address(body.email))}
    except ValueError:
        return {"userId": None}


def background(resources: Resources) -> list[Coroutine[None, None, None]]:
    """What the users service does beside answering, until cancelled."""
    settings, database = resources.settings, _database(resources)
    work = [revocations.keep_announced(database, resources.redis, settings.access_token_seconds)]
    if settings.environment != "production":
        work.append(mails.keep_delivering(database, settings, settings.data_dir / "mails"))
    return work


async def _confirmed(database: Sessions, user_id: UUID, body: ProfileChange) -> str:
    if body.email is None and body.password is None:
        return ""
    if body.current_password is None:
        raise InvalidRequest("A new address or password needs `currentPassword`.", code="current_password_required")
    return await users.confirm_password(database, user_id, body.current_password)


async def _announce(resources: Resources, session_ids: Collection[UUID]) -> None:
    await revocations.announce(resources.redis, session_ids, resources.settings.access_token_seconds)


def _database(resources: Resources) -> Sessions:
    return resources.sessions[Service.USERS]


def _signer(resources: Resources) -> TokenSigner:
    if "signer" not in resources.extra:
        resources.extra["signer"] = make_signer(resources.settings)
    return cast(TokenSigner, resources.extra["signer"])


def _profile(profile: users.Profile) -> ProfileResponse:
    return ProfileResponse(user_id=profile.user_id, email=profile.email, full_name=profile.full_name, role=profile.role)


def _hand_over(resources: Resources, response: Response, signed_in: sessions.SignedIn) -> LoginResponse:
    settings = resources.settings
    access = _signer(resources).sign(signed_in.user_id, signed_in.session_id, signed_in.role)
    seconds = settings.access_token_seconds
    _set_cookie(settings, response, access_cookie_name(settings), access, "/", seconds)
    _set_cookie(
        settings,
        response,
        _refresh_cookie_name(settings),
        signed_in.refresh_token,
        "/api/auth",
        signed_in.refresh_seconds,
    )
    response.headers["Cache-Control"] = "no-store"
    return LoginResponse(
        access_token=access,
        refresh_token=signed_in.refresh_token,
        expires_in=seconds,
        user_id=signed_in.user_id,
    )


def _drop_cookies(settings: Settings, response: Response) -> None:
    _set_cookie(settings, response, access_cookie_name(settings), "", "/", 0)
    _set_cookie(settings, response, _refresh_cookie_name(settings), "", "/api/auth", 0)


def _set_cookie(settings: Settings, response: Response, name: str, value: str, path: str, seconds: int) -> None:
    secure = settings.environment == "production"
    response.set_cookie(name, value, max_age=seconds, path=path, secure=secure, httponly=True, samesite="lax")


def _refresh_cookie_name(settings: Settings) -> str:
    """`__Host-` would need path `/`; this one goes to /api/auth only."""
    return "__Secure-mercato_refresh" if settings.environment == "production" else "mercato_refresh"


def _refresh_token(request: Request, settings: Settings, body: RefreshRequest | None) -> str | None:
    """The body goes first; a cookie counts only from our own pages (raises Forbidden)."""
    if body is not None and body.refresh_token is not None:
        return body.refresh_token
    cookie = request.cookies.get(_refresh_cookie_name(settings))
    if cookie:
        check_origin(request, settings)
    return cookie
