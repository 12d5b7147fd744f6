"""Mails about accounts. The queue holds no tokens: one is made when its mail is written, so none lies in the database.

Outside production they are delivered into a folder, where a developer finds them.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from loguru import logger
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from core.settings import Settings
from services.accounts import UserManager

SUBJECTS = {
    "verify": "Verify your e-mail address",
    "reset": "Choose a new password",
    "change_email": "Confirm your new e-mail address",
    "already_registered": "You have an account already",
    "password_changed": "Your password was changed",
    "email_changed": "Your e-mail address was changed",
}


@dataclass(frozen=True)
class Mail:
    id: int
    kind: str
    user_id: UUID
    address: str
    token: str | None  # for POST /api/auth/verify (verify, change_email) or /api/auth/reset-password (reset)


async def take(session: AsyncSession, settings: Settings, limit: int = 20) -> list[Mail]:
    """Mails not sent yet, marked as sent in this transaction: roll it back when delivery fails."""
    rows = await (await session.connection()).execute(
        text(
            """
            UPDATE users.mails SET sent_at = now() WHERE id IN (
                SELECT id FROM users.mails WHERE sent_at IS NULL ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
            ) RETURNING id, kind, user_id, address
            """
        ),
        {"limit": limit},
    )
    return [
        Mail(
            row.id,
            row.kind,
            row.user_id,
            row.address,
            await token_for(session, settings, row.kind, row.user_id, row.address),
        )
        for row in rows.all()
    ]


async def keep_delivering(sessions: Sessions, settings: Settings, folder: Path, every_seconds: float = 1) -> None:
    """Runs as long as the users service does, outside production."""
    while True:
        try:
            async with sessions.begin() as session:
                for mail in await take(session, settings):
                    await asyncio.to_thread(_write, folder, mail)
        except Exception as error:  # as in services.revocations: this task must outlive any outage
            logger.debug("Mails are not delivered: {}", type(error).__name__)
        await asyncio.sleep(every_seconds)


async def token_for(session: AsyncSession, settings: Settings, kind: str, user_id: UUID, address: str) -> str | None:
    """The token a mail of this kind carries, good from now on; None when it carries none."""
    manager = UserManager(session, settings)
    user = await manager.get(user_id)
    if kind == "change_email":
        return manager.change_email_token(user, address)
    if kind == "reset" and user.is_active:
        await manager.forgot_password(user)
    if kind == "verify" and user.is_active and not user.is_verified:
        await manager.request_verify(user)
    return manager.issued[0] if manager.issued else None


def _write(folder: Path, mail: Mail) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = f"\n{mail.token}\n" if mail.token else ""
    (folder / f"{mail.id}-{mail.kind}.txt").write_text(f"To: {mail.address}\nSubject: {SUBJECTS[mail.kind]}\n{token}")
