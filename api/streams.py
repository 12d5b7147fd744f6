"""The event streams that this process has open: how many one person may have, and for how long."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from loguru import logger
from redis.exceptions import RedisError

from api.auth import READY_KEY, Principal, revocation_key
from api.deps import Resources
from core.events import Subscription
from models.errors import Unavailable

CHECK_SECONDS = 2.0


@dataclass(eq=False)
class OpenStream:
    principal: Principal
    subscription: Subscription


class Streams:
    """Counts streams by person, closes the oldest above the limit, and those whose session has ended.

    A stream outlives the access token it was opened with: it lasts as long as the session, which is what a person signs
    out of. The limit holds for each process.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._by_user: defaultdict[UUID, list[OpenStream]] = defaultdict(list)  # oldest first
        self._watch: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self, principal: Principal, customer_id: UUID, after_seq: int) -> AsyncIterator[Subscription]:
        """The customer's events after `after_seq`, counted for `principal` until left."""
        async with self._resources.events.subscribe(customer_id, after_seq) as subscription:
            stream = OpenStream(principal, subscription)
            mine = self._by_user[principal.user_id]
            mine.append(stream)
            self._close_oldest(mine)
            self._watch_sessions()
            try:
                yield subscription
            finally:
                mine.remove(stream)
                if not mine and self._by_user.get(principal.user_id) is mine:
                    del self._by_user[principal.user_id]

    def _close_oldest(self, mine: list[OpenStream]) -> None:
        settings = self._resources.settings
        if settings.limits_rates:
            running = [stream for stream in mine if not stream.subscription.closed]
            for stream in running[: -settings.streams_per_user]:
                stream.subscription.close()

    def _watch_sessions(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._check_while_open(), name="streams-sessions")

    async def _check_while_open(self) -> None:
        """One task a process, and only while somebody listens."""
        while self._by_user:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._close_ended()
            except Exception as error:
                # The next round asks again; a watch that had died would let ended sessions listen for ever.
                logger.warning("Sessions of streams cannot be checked: {}", type(error).__name__)

    async def _close_ended(self) -> None:
        streams = [stream for mine in self._by_user.values() for stream in mine]
        ended = await ended_sessions(self._resources, {stream.principal.session_id for stream in streams})
        for stream in streams:
            if stream.principal.session_id in ended:
                stream.subscription.close()


async def ended_sessions(resources: Resources, sessions: Collection[UUID]) -> set[UUID]:
    """Those of `sessions` that are known to have ended: one question to Valkey, or one each to the users service.

    When neither answers nobody has ended: a stream tells only what its reader was allowed to see a moment ago, and to
    close them all would bring them all back at once.
    """
    asked = list(sessions)
    try:
        async with resources.redis.pipeline(transaction=False) as pipe:
            pipe.exists(READY_KEY)
            for session_id in asked:
                pipe.exists(revocation_key(session_id))
            ready, *revoked = await pipe.execute()
        if ready:
            return {session_id for session_id, gone in zip(asked, revoked, strict=True) if gone}
    except (RedisError, OSError) as error:
        logger.debug("Sessions of streams are checked without Valkey: {}", type(error).__name__)
    ended: set[UUID] = set()
    try:
        for session_id in asked:  # one after the other: the users service has others to serve, we have time
            if not await resources.users.session_active(session_id):
                ended.add(session_id)
    except Unavailable:
        logger.debug("Sessions of streams cannot be checked")
    return ended


def streams_of(resources: Resources) -> Streams:
    """The one register of this process."""
    streams: Streams = resources.extra.setdefault("streams", None) or Streams(resources)
    resources.extra["streams"] = streams
    return streams
