"""Accounts: register, sign in, forget and change a password, verify and change an address, the own profile.

Whether an address is known can be told from no answer: both ways take the same statements, the same Argon2 work and a
commit. What only the owner of the address may learn goes into a mail. Sessions that a call ended are returned, to be
announced by the caller after the commit (services.revocations).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi_users.exceptions import InvalidResetPasswordToken, InvalidVerifyToken, UserAlreadyVerified, UserNotExists
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from core.settings import Settings
from models.errors import BadRequest, Forbidden, InvalidCredentials, Unauthenticated
from models.types import Role
from models.users import User
from services import passwords, sessions
from services.accounts import UserManager


@dataclass(frozen=True)
class Profile:
    user_id: UUID
    email: str
    full_name: str
    role: Role


async def register(database: Sessions, email: str, password: str, full_name: str) -> None:
    """Make an account, or write to its owner that there is one already. Raises InvalidRequest (`weak_password`)."""
    passwords.check_allowed(password, email)
    hashed = await passwords.hash_password(password)  # before the transaction: no connection waits for Argon2
    async with database.begin() as session:
        made = await _insert(session, email, hashed, full_name)
        await _queue_mail(session, "verify" if made else "already_registered", email)
        await _audit(session, "registered" if made else "registered_again", made)


async def login(database: Sessions, settings: Settings, email: str, password: str) -> sessions.SignedIn:
    """Raises InvalidCredentials (unknown, wrong or deactivated: the same), Forbidden (`not_verified`)."""
    async with database.begin() as session:
        user = await _find(session, settings, email)
    usable = user is not None and user.is_active
    matched = await passwords.matches(password, user.hashed_password if user and usable else None)
    async with database.begin() as session:
        if user and matched and (user.is_verified or not settings.verified_required):
            # the lock and the second look: a password changed meanwhile has ended all sessions, also this one
            if await _still(session, user):
                await _audit(session, "signed_in", user.id)
                return await sessions.open_session(session, settings, user.id, Role(user.role))
            matched = False
        await _audit(session, "sign_in_refused", user.id if user else None)
    if matched:
        raise Forbidden("Verify the e-mail address first.", code="not_verified")
    raise InvalidCredentials("E-mail address or password is wrong.")


async def forgot_password(session: AsyncSession, email: str) -> None:
    """Queue the mail with a reset token, if there is such an account."""
    await _queue_mail(session, "reset", email)
    await _audit(session, "reset_requested", None)


async def reset_password(session: AsyncSession, settings: Settings, token: str, password: str) -> Sequence[UUID]:
    """Ends all sessions. Raises BadRequest (`invalid_token`), InvalidRequest (`weak_password`)."""
    try:
        user = await UserManager(session, settings).reset_password(token, password)
    except InvalidResetPasswordToken as error:
        raise BadRequest("The token is not valid (any more).", code="invalid_token") from error
    await _queue_mail(session, "password_changed", user.email)
    await _audit(session, "password_reset", user.id)
    return await sessions.end_all(session, user.id)


async def verify(session: AsyncSession, settings: Settings, token: str) -> Sequence[UUID]:
    """Verify the address of an account, or its new address (which ends all sessions). Raises BadRequest."""
    manager = UserManager(session, settings)
    try:
        user = await manager.verify(token)
    except UserAlreadyVerified:
        return []
    except InvalidVerifyToken:
        return await _verify_new_email(session, manager, token)
    await _audit(session, "verified", user.id)
    return []


async def profile(session: AsyncSession, user_id: UUID) -> Profile:
    """Raises Unauthenticated when there is no such account any more."""
    user = await session.get(User, user_id)
    if user is None or not user.is_active:
        raise Unauthenticated("There is no such account.")
    return _profile_of(user)


async def id_of(session: AsyncSession, email: str) -> UUID | None:
    """Whose address this is, whatever its case; None if nobody's. For other services on behalf of staff."""
    found = await _execute(session, "SELECT id FROM users.users WHERE lower(email) = lower(:email)", email=email)
    user_id: UUID | None = found.scalar_one_or_none()
    return user_id


async def rename(session: AsyncSession, user_id: UUID, full_name: str) -> None:
    await _execute(
        session,
        "UPDATE users.users SET full_name = :name, updated_at = now() WHERE id = :id",
        id=user_id,
        name=full_name,
    )


async def confirm_password(database: Sessions, user_id: UUID, password: str) -> str:
    """The stored hash that `password` was checked against; raises Forbidden (`wrong_password`)."""
    async with database.begin() as session:
        user = await session.get(User, user_id)
    if not await passwords.matches(password, user.hashed_password if user else None) or user is None:
        raise Forbidden("The current password is wrong.", code="wrong_password")
    return user.hashed_password


async def change_password(
    session: AsyncSession, settings: Settings, user_id: UUID, confirmed: str, password: str
) -> Sequence[UUID]:
    """Ends all sessions, the caller's too. `confirmed` comes from confirm_password; a password changed since then is
    Forbidden (`wrong_password`)."""
    user = await _locked(session, user_id, confirmed)
    passwords.check_allowed(password, user.email)
    await UserManager(session, settings).user_db.update(
        user, {"hashed_password": await passwords.hash_password(password)}
    )
    await _queue_mail(session, "password_changed", user.email)
    await _audit(session, "password_changed", user_id)
    return await sessions.end_all(session, user_id)


async def change_email(
    session: AsyncSession, settings: Settings, user_id: UUID, confirmed: str, email: str, kept: UUID
) -> Sequence[UUID]:
    """Ask the new address for a confirmation (`verify`). Where sign-in needs no verified address (development), it is
    taken over at once and the other sessions end; not when it belongs to somebody, which no answer tells."""
    user = await _locked(session, user_id, confirmed)
    if settings.verified_required:
        await _execute(
            session,
            "INSERT INTO users.mails (kind, user_id, address) VALUES ('change_email', :id, :address)",
            id=user_id,
            address=email,
        )
        return []
    return await _take_email(session, user, email, verified=False, kept=kept)


async def ensure_user(session: AsyncSession, email: str, password: str, full_name: str, role: Role) -> UUID:
    """A verified account with this role; one that exists keeps its password and name. Returns its id."""
    hashed = await passwords.hash_password(password)
    await _insert(session, email, hashed, full_name)
    user_id = await _set_role(session, email, role)
    assert user_id is not None
    return user_id


async def change_role(session: AsyncSession, email: str, role: Role) -> UUID | None:
    """Another role for an account that exists, and a verified address: who gives the role vouches for it. Ends all
    sessions, whose tokens carry the former role. None: there is no such account."""
    user_id = await _set_role(session, email, role)
    if user_id is not None:
        await sessions.end_all(session, user_id)
        await _audit(session, "role_changed", user_id)
    return user_id


async def _set_role(session: AsyncSession, email: str, role: Role) -> UUID | None:
    found = await _execute(
        session,
        """
        UPDATE users.users SET role = :role, is_verified = true WHERE lower(email) = lower(:email) RETURNING id
        """,
        email=email,
        role=role.value,
    )
    row = found.one_or_none()
    return row.id if row else None


async def _verify_new_email(session: AsyncSession, manager: UserManager, token: str) -> Sequence[UUID]:
    try:
        user, email = await manager.changed_email(token)
    except InvalidVerifyToken as error:
        raise BadRequest("The token is not valid (any more).", code="invalid_token") from error
    return await _take_email(session, user, email, verified=True, kept=None)


async def _take_email(
    session: AsyncSession, user: User, email: str, *, verified: bool, kept: UUID | None
) -> Sequence[UUID]:
    former = user.email
    changed = await _execute(
        session,
        """
        UPDATE users.users SET email = :email, is_verified = :verified, updated_at = now()
        WHERE id = :id AND NOT EXISTS (SELECT 1 FROM users.users WHERE lower(email) = lower(:email) AND id <> :id)
        RETURNING id
        """,
        id=user.id,
        email=email,
        verified=verified,
    )
    if changed.one_or_none() is None:
        await _queue_mail(session, "already_registered", email)
        return []
    await session.refresh(user)
    if not verified:
        await _queue_mail(session, "verify", email)
    await _execute(
        session,
        "INSERT INTO users.mails (kind, user_id, address) VALUES ('email_changed', :id, :former)",
        id=user.id,
        former=former,
    )
    await _audit(session, "email_changed", user.id)
    return await sessions.end_all(session, user.id, except_for=kept)


async def _insert(session: AsyncSession, email: str, hashed: str, full_name: str) -> UUID | None:
    rows = await _execute(
        session,
        """
        INSERT INTO users.users (email, full_name, hashed_password) VALUES (:email, :name, :hashed)
        ON CONFLICT (lower(email)) DO NOTHING RETURNING id
        """,
        email=email,
        name=full_name,
        hashed=hashed,
    )
    row = rows.one_or_none()
    return row.id if row else None


async def _find(session: AsyncSession, settings: Settings, email: str) -> User | None:
    try:
        return await UserManager(session, settings).get_by_email(email)
    except UserNotExists:
        return None


async def _still(session: AsyncSession, user: User) -> bool:
    found = await _execute(
        session,
        "SELECT 1 FROM users.users WHERE id = :id AND hashed_password = :hashed AND is_active FOR SHARE",
        id=user.id,
        hashed=user.hashed_password,
    )
    return found.one_or_none() is not None


async def _locked(session: AsyncSession, user_id: UUID, confirmed: str) -> User:
    user = await session.get(User, user_id, with_for_update=True)
    if user is None or not user.is_active or user.hashed_password != confirmed:
        raise Forbidden("The current password is wrong.", code="wrong_password")
    return user


async def _queue_mail(session: AsyncSession, kind: str, email: str) -> None:
    """One statement whether or not the address is known; the token is made when it is delivered."""
    await _execute(
        session,
        """
        INSERT INTO users.mails (kind, user_id, address)
        SELECT :kind, id, email FROM users.users WHERE lower(email) = lower(:email) AND is_active
        """,
        kind=kind,
        email=email,
    )


async def _audit(session: AsyncSession, event: str, user_id: UUID | None) -> None:
    await _execute(
        session, "INSERT INTO users.audit (user_id, event) VALUES (:user, :event)", user=user_id, event=event
    )


def _profile_of(user: User) -> Profile:
    return Profile(user.id, user.email, user.full_name, Role(user.role))


async def _execute(session: AsyncSession, statement: str, **values: Any) -> Any:
    return await (await session.connection()).execute(text(statement), values)
