"""fastapi-users, wired to our table, with its gaps closed: it never commits, hashes nothing on the event loop, and its
reset tokens are bound to the password and address they were asked for."""

import hashlib
import hmac
from typing import Any, cast
from uuid import UUID

import jwt
from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.exceptions import InvalidID, InvalidResetPasswordToken, InvalidVerifyToken, UserNotExists
from fastapi_users.jwt import decode_jwt, generate_jwt
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from sqlmodel.ext.asyncio.session import AsyncSession

from core.settings import Settings
from models.users import User
from services import passwords

TOKEN_SECONDS = 3600
CHANGE_EMAIL_AUDIENCE = "mercato:change-email"


class UserTable(SQLAlchemyUserDatabase[User, UUID]):
    """The adapter of fastapi-users commits; here the caller owns the transaction."""

    async def update(self, user: User, update_dict: dict[str, Any]) -> User:
        for field, value in update_dict.items():
            setattr(user, field, value)
        await self.session.flush()
        return user

    async def _get_user(self, statement: Any) -> User | None:
        found: User | None = (await cast(AsyncSession, self.session).exec(statement)).scalars().one_or_none()
        return found

    async def create(self, create_dict: dict[str, Any]) -> User:
        raise NotImplementedError("accounts are made by services.users.register")

    async def delete(self, user: User) -> None:
        raise NotImplementedError("accounts are never deleted, orders refer to them")


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """One transaction's view of the accounts. `issued` collects the tokens made, to be put into mails."""

    reset_password_token_lifetime_seconds = TOKEN_SECONDS
    verification_token_lifetime_seconds = 7 * 24 * 3600

    def __init__(self, session: AsyncSession, settings: Settings) -> None:
        super().__init__(UserTable(session, User), passwords.HELPER)
        self._session = session
        self._key = hmac.digest(settings.secret_key.get_secret_value().encode(), b"mail tokens", hashlib.sha256)
        self.reset_password_token_secret = self.verification_token_secret = self._key.hex()
        self.issued: list[str] = []

    async def validate_password(self, password: str, user: Any) -> None:
        passwords.check_allowed(password, user.email)

    async def on_after_request_verify(self, user: User, token: str, request: Any = None) -> None:  # noqa: ARG002
        self.issued.append(token)

    async def on_after_forgot_password(self, user: User, token: str, request: Any = None) -> None:  # noqa: ARG002
        self.issued.append(token)

    async def forgot_password(self, user: User, request: Any = None) -> None:
        """As in fastapi-users, but the fingerprint is an HMAC (no Argon2) and covers the address too."""
        claims = {
            "sub": str(user.id),
            "fingerprint": self._fingerprint(user),
            "aud": self.reset_password_token_audience,
        }
        token = generate_jwt(claims, self.reset_password_token_secret, self.reset_password_token_lifetime_seconds)
        await self.on_after_forgot_password(user, token, request)

    async def reset_password(self, token: str, password: str, request: Any = None) -> User:
        """Raises InvalidResetPasswordToken, InvalidRequest (weak password). A reset token also proves the address."""
        claims = self._claims(token, self.reset_password_token_audience)
        user = await self._locked(claims.get("sub")) if claims else None
        if user is None or not self._is_bound(claims, user):
            raise InvalidResetPasswordToken()
        await self._set_password(user, password)
        user.is_verified = True
        await self.on_after_reset_password(user, request)
        return user

    def change_email_token(self, user: User, address: str) -> str:
        claims = {
            "sub": str(user.id),
            "email": address,
            "fingerprint": self._fingerprint(user),
            "aud": CHANGE_EMAIL_AUDIENCE,
        }
        return generate_jwt(claims, self.verification_token_secret, TOKEN_SECONDS)

    async def changed_email(self, token: str) -> tuple[User, str]:
        """Who asked for which new address; raises InvalidVerifyToken."""
        claims = self._claims(token, CHANGE_EMAIL_AUDIENCE)
        user = await self._locked(claims.get("sub")) if claims else None
        if user is None or not self._is_bound(claims, user):
            raise InvalidVerifyToken()
        return user, str(claims["email"])

    async def _set_password(self, user: User, password: str) -> None:
        await self.validate_password(password, user)
        await self.user_db.update(user, {"hashed_password": await passwords.hash_password(password)})

    async def _update(self, user: User, update_dict: dict[str, Any]) -> User:
        """The base class hashes a "password" in here, on the event loop, and tells whether an address is taken."""
        if update_dict.keys() & {"password", "email"}:
            raise NotImplementedError("passwords and addresses change through services.users")
        return await self.user_db.update(user, update_dict)

    async def _locked(self, user_id: Any) -> User | None:
        try:
            user = await self.get(self.parse_id(user_id))
        except (InvalidID, UserNotExists, TypeError, AttributeError):
            return None
        await self._session.refresh(user, with_for_update=True)
        return user if user.is_active else None

    def _claims(self, token: str, audience: str) -> dict[str, Any]:
        try:
            return decode_jwt(token, self.reset_password_token_secret, [audience])
        except jwt.PyJWTError:
            return {}

    def _is_bound(self, claims: dict[str, Any], user: User) -> bool:
        return hmac.compare_digest(str(claims.get("fingerprint", "")).encode(), self._fingerprint(user).encode())

    def _fingerprint(self, user: User) -> str:
        return hmac.new(self._key, f"{user.email}\n{user.hashed_password}".encode(), hashlib.sha256).hexdigest()
