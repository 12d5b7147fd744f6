"""Ended sessions, announced to every service through Valkey; the users' table stays the truth.

A session is ended in the table first, then announced as `revoked:{id}` for as long as its access tokens could live.
`revocations:ready` says that Valkey knows all of them. It is missing after a restart of Valkey (the others then ask
the users service) until `keep_announced` has written them again. An announcement that failed is repeated every second
from the table, also after a crash between the two writes. The marker lasts one token life: without a users process
there are no new revocations and, after that time, no valid tokens either.
"""

import asyncio
from collections.abc import Collection
from uuid import UUID

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text

from core.db import Sessions

READY = "revocations:ready"
SLACK_SECONDS = 5  # clocks differ, tokens have leeway


async def is_revoked(redis: Redis, session_id: UUID) -> bool | None:
    """None: Valkey cannot tell (gone, or back without its memory)."""
    try:
        async with redis.pipeline(transaction=False) as pipe:
            pipe.exists(_key(session_id))
            pipe.exists(READY)
            revoked, ready = await pipe.execute()
    except (RedisError, OSError) as error:
        logger.warning("Valkey cannot be asked for revocations: {}", type(error).__name__)
        return None
    return True if revoked else False if ready else None


async def revoked_among(redis: Redis, session_ids: Collection[UUID]) -> set[UUID] | None:
    """Those of many sessions that have been ended, by one round trip; None: Valkey cannot tell."""
    asked = list(session_ids)
    try:
        async with redis.pipeline(transaction=False) as pipe:
            pipe.exists(READY)
            for session_id in asked:
                pipe.exists(_key(session_id))
            ready, *revoked = await pipe.execute()
    except (RedisError, OSError) as error:
        logger.debug("Valkey cannot be asked for revocations: {}", type(error).__name__)
        return None
    return {session_id for session_id, ended in zip(asked, revoked, strict=True) if ended} if ready else None


async def announce(redis: Redis, session_ids: Collection[UUID], token_seconds: int) -> bool:
    """To be called after the commit that ended these sessions. False when Valkey could not be told (now)."""
    try:
        await _write(redis, session_ids, token_seconds)
    except (RedisError, OSError) as error:
        logger.warning("{} revocations wait for Valkey: {}", len(session_ids), type(error).__name__)
        return False
    return True


async def keep_announced(sessions: Sessions, redis: Redis, token_seconds: int, every_seconds: float = 1) -> None:
    """Runs as long as the users service does: repairs what Valkey lost or was not told."""
    announcer = Announcer(sessions, redis, token_seconds)
    while True:
        try:
            await announcer.renew()
        except Exception as error:  # whatever it is, the next second may be better, and nobody else does this
            logger.debug("Revocations are not renewed: {}", type(error).__name__)
        await asyncio.sleep(every_seconds)


class Announcer:
    """Remembers which run of Valkey it has filled: one that restarted from a snapshot kept the marker, not the rest."""

    def __init__(self, sessions: Sessions, redis: Redis, token_seconds: int) -> None:
        self._sessions = sessions
        self._redis = redis
        self._token_seconds = token_seconds
        self._filled_run: str | None = None

    async def renew(self) -> None:
        run = str((await self._redis.info("server"))["run_id"])
        filled = run == self._filled_run and bool(await self._redis.exists(READY))
        async with self._sessions.begin() as session:
            connection = await session.connection()
            rows = await connection.execute(
                text(
                    """
                    SELECT id FROM users.sessions
                    WHERE revoked_at > now() - make_interval(secs => :recent) AND (announced_at IS NULL OR NOT :filled)
                    """
                ),
                {"recent": self._token_seconds + SLACK_SECONDS, "filled": filled},
            )
            ids = [row.id for row in rows]
            await _write(self._redis, ids, self._token_seconds)
            if ids:
                await connection.execute(
                    text("UPDATE users.sessions SET announced_at = now() WHERE id = ANY(:ids)"), {"ids": ids}
                )
        await self._redis.set(READY, 1, ex=self._token_seconds)
        self._filled_run = run


async def _write(redis: Redis, session_ids: Collection[UUID], token_seconds: int) -> None:
    if not session_ids:
        return
    async with redis.pipeline(transaction=False) as pipe:
        for session_id in session_ids:
            pipe.set(_key(session_id), 1, ex=token_seconds + SLACK_SECONDS)
        await pipe.execute()


def _key(session_id: UUID) -> str:
    return f"revoked:{session_id}"
