"""Sessions and their refresh tokens.

A refresh token is `session.generation.seal`; the seal is an HMAC over both under our key and the session's own random
nonce, so neither the database nor the key alone can make one, and any generation can be told to have been ours. Each
use goes to the next generation. Using an older one again means that two hold it: the session ends. Only within a few
seconds it is a double click or a lost answer, and gets the same next token. The end of a session does not move.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from core.settings import Settings
from models.errors import Unauthenticated
from models.types import Role

GRACE_SECONDS = 5


@dataclass(frozen=True)
class SignedIn:
    """What a login or a refresh gives; `refresh_seconds`: how long the session has left."""

    user_id: UUID
    session_id: UUID
    role: Role
    refresh_token: str
    refresh_seconds: int


@dataclass(frozen=True)
class Reused:
    """An old refresh token came again: the session has been ended and must be announced, after the commit."""

    session_id: UUID


async def open_session(session: AsyncSession, settings: Settings, user_id: UUID, role: Role) -> SignedIn:
    """A new session of this user; long expired ones of the same user are swept out."""
    nonce = secrets.token_bytes(32)
    await _execute(
        session,
        "DELETE FROM users.sessions WHERE user_id = :user AND expires_at < now() - interval '1 day'",
        user=user_id,
    )
    row = await _one(
        session,
        """
        INSERT INTO users.sessions (user_id, nonce, expires_at)
        VALUES (:user, :nonce, now() + make_interval(secs => :seconds)) RETURNING id
        """,
        user=user_id,
        nonce=nonce,
        seconds=settings.refresh_token_seconds,
    )
    return SignedIn(user_id, row.id, role, _token(settings, row.id, 1, nonce), settings.refresh_token_seconds)


async def rotate(session: AsyncSession, settings: Settings, token: str) -> SignedIn | Reused:
    """Trade a refresh token for the next one; raises Unauthenticated when it is not ours, ended or expired."""
    session_id, generation = _parse(token)
    row = await _one(
        session,
        """
        SELECT s.user_id, s.nonce, s.generation, u.role,
               s.revoked_at IS NULL AND s.expires_at > now() AND u.is_active AS active,
               s.rotated_at > now() - make_interval(secs => :grace) AS just_rotated,
               ceil(extract(epoch FROM s.expires_at - now()))::int AS seconds
        FROM users.sessions s JOIN users.users u ON u.id = s.user_id WHERE s.id = :id FOR UPDATE OF s
        """,
        id=session_id,
        grace=GRACE_SECONDS,
    )
    if row is None or not hmac.compare_digest(
        token.encode(), _token(settings, session_id, generation, row.nonce).encode()
    ):
        raise Unauthenticated("The refresh token is not valid.")
    if not row.active:
        raise Unauthenticated("This session has ended.")
    current: int = row.generation
    if generation == current:
        current += 1
        await _execute(
            session,
            "UPDATE users.sessions SET generation = :generation, rotated_at = now() WHERE id = :id",
            id=session_id,
            generation=current,
        )
    elif not (generation == current - 1 and row.just_rotated):
        await end(session, session_id)
        return Reused(session_id)
    next_token = _token(settings, session_id, current, row.nonce)
    return SignedIn(row.user_id, session_id, Role(row.role), next_token, row.seconds)


async def session_of(session: AsyncSession, settings: Settings, token: str) -> UUID | None:
    """The session that a refresh token of any generation belongs to, for a logout; None when it is not ours."""
    try:
        session_id, generation = _parse(token)
    except Unauthenticated:
        return None
    row = await _one(session, "SELECT nonce FROM users.sessions WHERE id = :id", id=session_id)
    if row is None:
        return None
    genuine = hmac.compare_digest(token.encode(), _token(settings, session_id, generation, row.nonce).encode())
    return session_id if genuine else None


async def is_active(session: AsyncSession, session_id: UUID) -> bool:
    row = await _one(
        session,
        """
        SELECT 1 FROM users.sessions s JOIN users.users u ON u.id = s.user_id
        WHERE s.id = :id AND s.revoked_at IS NULL AND s.expires_at > now() AND u.is_active
        """,
        id=session_id,
    )
    return row is not None


async def end(session: AsyncSession, session_id: UUID) -> None:
    """Idempotent. The caller announces it after the commit."""
    await _execute(
        session,
        "UPDATE users.sessions SET revoked_at = clock_timestamp() WHERE id = :id AND revoked_at IS NULL",
        id=session_id,
    )


async def end_all(session: AsyncSession, user_id: UUID, except_for: UUID | None = None) -> Sequence[UUID]:
    """The sessions ended by this call, to be announced after the commit."""
    result = await (await session.connection()).execute(
        text(
            """
            UPDATE users.sessions SET revoked_at = clock_timestamp()
            WHERE user_id = :user AND revoked_at IS NULL AND id IS DISTINCT FROM CAST(:kept AS uuid) RETURNING id
            """
        ),
        {"user": user_id, "kept": except_for},
    )
    return [row.id for row in result]


def _parse(token: str) -> tuple[UUID, int]:
    session_id, _, rest = token.partition(".")
    generation, _, _ = rest.partition(".")
    try:
        if len(token) > 200 or not generation.isascii():
            raise ValueError
        return UUID(session_id), int(generation)
    except ValueError as error:
        raise Unauthenticated("The refresh token is not valid.") from error


def _token(settings: Settings, session_id: UUID, generation: int, nonce: bytes) -> str:
    body = f"{session_id.hex}.{generation}"
    key = hmac.digest(settings.secret_key.get_secret_value().encode(), b"refresh" + nonce, hashlib.sha256)
    seal = urlsafe_b64encode(hmac.digest(key, body.encode(), hashlib.sha256)).decode().rstrip("=")
    return f"{body}.{seal}"


async def _execute(session: AsyncSession, statement: str, **values: Any) -> None:
    await (await session.connection()).execute(text(statement), values)


async def _one(session: AsyncSession, statement: str, **values: Any) -> Any:
    return (await (await session.connection()).execute(text(statement), values)).one_or_none()
