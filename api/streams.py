"""The event streams that this process has open: how many one person may have, and for how long."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from loguru import logger

from api.auth import Principal
from api.deps import Resources
from core.events import Subscription
from models.errors import Unavailable
from services import revocations

CHECK_SECONDS = 2.0
USERS_SECONDS = 600.0  # Valkey knows of sign-outs only; that a session's time is up the users service knows


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
        clock = asyncio.get_running_loop().time
        ask_users_at = clock() + USERS_SECONDS
        while self._by_user:
            await asyncio.sleep(CHECK_SECONDS)
            everything = clock() >= ask_users_at
            try:
                await self._close_ended(everything)
            except Exception as error:
                # The next round asks again; a watch that had died would let ended sessions listen for ever.
                logger.warning("Sessions of streams cannot be checked: {}", type(error).__name__)
            if everything:
                ask_users_at = clock() + USERS_SECONDS

    async def _close_ended(self, everything: bool) -> None:
        sessions = {stream.principal.session_id for mine in self._by_user.values() for stream in mine}
        ended = None if everything else await revocations.revoked_among(self._resources.redis, sessions)
        if ended is None:
            ended = await self._ended_says_users(sessions)
        for stream in [each for mine in self._by_user.values() for each in mine]:
            if stream.principal.session_id in ended:
                stream.subscription.close()

    async def _ended_says_users(self, sessions: Collection[UUID]) -> set[UUID]:
        """When the users service does not answer either, nobody has ended for now: to close all streams would bring all
        their readers back at once, to a door where 503 is said."""
        ended: set[UUID] = set()
        try:
            for session_id in sessions:  # one after the other: the users service has others to serve, we have time
                if not await self._resources.users.session_active(session_id):
                    ended.add(session_id)
        except Unavailable:
            logger.debug("The users service cannot be asked for sessions of streams")
        return ended


def streams_of(resources: Resources) -> Streams:
    """The one register of this process."""
    if "streams" not in resources.extra:
        resources.extra["streams"] = Streams(resources)
    streams: Streams = resources.extra["streams"]
    return streams
