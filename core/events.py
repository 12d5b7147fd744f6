"""Events from the log to the streams of this process.

The log in PostgreSQL is the truth. Valkey carries a hint only, "this customer has news", and one loop reads the log for
all customers who have a stream open: at once after a hint, and every two seconds without one. So without Valkey a
stream is late, never wrong, and a stream holds neither a database connection nor one to Valkey.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import UUID

from loguru import logger
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from core.background import end
from models.orders import CustomerEvent

CHANNEL = "mercato:events"
QUEUE_SIZE = 64
PAGE = QUEUE_SIZE  # events of one customer in one read: what a stream that has caught up can take
CUSTOMERS_A_QUERY = 500
PUBLISH_SECONDS = 0.5
RECONNECT_SECONDS = 1.0
PING_SECONDS = 5.0

ReadNewer = Callable[[Mapping[UUID, int]], Awaitable[list[CustomerEvent]]]


async def publish_hint(redis: Redis, customer_id: UUID) -> None:
    """Tell every process that the customer has news. Call it after the commit. Never raises: streams poll as well."""
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            await redis.publish(CHANNEL, str(customer_id))
    except (RedisError, OSError, TimeoutError) as error:
        logger.debug("No hint for streams: {}", type(error).__name__)


class Subscription:
    """One stream's place in a customer's log: iterate over it for the events after `after_seq`, in order, each once.

    The queue is bounded. What does not fit is not kept but read again when the stream has caught up, so a reader that
    is frozen costs the same as one that is idle. The iteration ends when the subscription is closed.
    """

    def __init__(self, hub: "EventHub", customer_id: UUID, after_seq: int) -> None:
        self.customer_id = customer_id
        self.tail = after_seq  # the last seq that is queued or was taken
        self.closed = False
        self._hub = hub
        self._queue: deque[CustomerEvent] = deque()
        self._missed = True  # the log may hold more after `tail` than was offered; at first nobody has looked
        self._news = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return len(self._queue) < QUEUE_SIZE

    @property
    def queued(self) -> int:
        return len(self._queue)

    def offer(self, after: int, events: list[CustomerEvent]) -> None:
        """Take what follows `tail` of `events`: the first page of what the log holds after the seq `after`."""
        if self.tail < after or len(events) >= PAGE:
            self._missed = True  # there may be more before, or behind, this page
        if self.tail >= after:
            for event in events:
                if event.seq > self.tail and not self._take(event):
                    break
        self._news.set()

    def _take(self, event: CustomerEvent) -> bool:
        if not self.has_room:
            self._missed = True
            return False
        self._queue.append(event)
        self.tail = event.seq
        return True

    def close(self) -> None:
        """End the iteration; what is still queued is left to the next connection."""
        self.closed = True
        self._hub.forget(self)
        self._news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CustomerEvent:
        while not self.closed:
            if self._queue:
                return self._queue.popleft()
            self._news.clear()
            if self._missed:
                self._missed = False
                self._hub.ask(self.customer_id)
            await self._news.wait()
        raise StopAsyncIteration


class EventHub:
    """All streams of one process: one subscription to Valkey, one loop that reads the log.

    `read_newer` maps customers and their last known seq to the events that follow, ordered by customer and seq, the
    first PAGE of each customer.
    """

    def __init__(self, read_newer: ReadNewer, redis: Redis, poll_seconds: float = 2.0) -> None:
        self._read_newer = read_newer
        self._redis = redis
        self._poll_seconds = poll_seconds
        self._live: defaultdict[UUID, set[Subscription]] = defaultdict(set)
        self._asked: set[UUID] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    async def start(self) -> None:
        """Begin to read and to listen; neither the database nor Valkey has to be there."""
        self._tasks = [
            asyncio.create_task(self._read_forever(), name="events-read"),
            asyncio.create_task(self._listen_forever(), name="events-listen"),
        ]

    async def stop(self) -> None:
        """Close every subscription, also those that still come, and end both loops. Harmless when repeated."""
        self._stopped = True
        for subscription in [each for group in self._live.values() for each in group]:
            subscription.close()
        await end(*self._tasks)
        self._tasks = []

    def subscribe(self, customer_id: UUID, after_seq: int) -> Subscription:
        """The customer's events after `after_seq`, from the log and then live. Use it with `async with`."""
        subscription = Subscription(self, customer_id, after_seq)
        self._live[customer_id].add(subscription)
        if self._stopped:
            subscription.close()
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """For a subscription that closes."""
        group = self._live.get(subscription.customer_id)
        if group:
            group.discard(subscription)
            if not group:
                del self._live[subscription.customer_id]

    def ask(self, customer_id: UUID) -> None:
        """Read this customer's log now. Many calls while a read is under way become one read."""
        if customer_id in self._live:
            self._asked.add(customer_id)
            self._wake.set()

    async def _read_forever(self) -> None:
        clock = asyncio.get_running_loop().time
        poll_at = clock() + self._poll_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(poll_at):
                    await self._wake.wait()
            self._wake.clear()
            customers = set(self._asked)
            self._asked.clear()
            if clock() >= poll_at:
                customers = set(self._live)
                poll_at = clock() + self._poll_seconds
            try:
                await self._read(customers)
            except Exception as error:
                # Whatever it was, the next poll asks again for everybody; without this loop all streams would be dead.
                logger.warning("The event log cannot be read: {}", type(error).__name__)

    async def _read(self, customers: set[UUID]) -> None:
        cursors = [(customer, cursor) for customer in customers if (cursor := self._cursor(customer)) is not None]
        for start in range(0, len(cursors), CUSTOMERS_A_QUERY):
            chunk = dict(cursors[start : start + CUSTOMERS_A_QUERY])
            found: defaultdict[UUID, list[CustomerEvent]] = defaultdict(list)
            for event in await self._read_newer(chunk):
                found[event.customer_id].append(event)
            for customer, events in found.items():
                for subscription in self._live.get(customer, ()):
                    subscription.offer(chunk[customer], events)

    def _cursor(self, customer: UUID) -> int | None:
        """Where the hindmost of the streams stands that can take more; None when none can."""
        tails = [each.tail for each in self._live.get(customer, ()) if each.has_room]
        return min(tails, default=None)

    async def _listen_forever(self) -> None:
        quiet = False  # say it once an outage
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    quiet = False
                    await self._listen(pubsub)
            except Exception as error:
                # Mostly that Valkey is away; but a loop that had died of anything else would never hear a hint again.
                if not quiet:
                    logger.warning("No hints from Valkey ({}): streams are late by up to a poll", type(error).__name__)
                quiet = True
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, pubsub: PubSub) -> None:
        """Pass hints on until the connection fails; a ping finds out about one that died without a word."""
        silent = 0
        while silent < 2:
            message = await pubsub.get_message(timeout=PING_SECONDS)
            silent = 0 if message else silent + 1
            if message is None:
                await pubsub.ping()
            elif message["type"] == "subscribe":  # also after a reconnect inside the client: hints were lost until now
                for customer in self._live:
                    self.ask(customer)
            elif message["type"] == "message":
                self._on_hint(message["data"])
        raise TimeoutError

    def _on_hint(self, data: bytes | str) -> None:
        with suppress(ValueError):
            self.ask(UUID(data.decode() if isinstance(data, bytes) else data))
