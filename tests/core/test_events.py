"""The customer's event log and the hub that brings it to streams, on a real PostgreSQL and a real Valkey."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.db import Sessions, make_engine, make_sessions
from core.events import PAGE, QUEUE_SIZE, EventHub, Subscription, publish_hint
from core.redis import make_redis
from core.settings import derived_role_url
from models.orders import CustomerEvent
from models.types import EventType
from services import events
from tests import order_log

NOBODY = "redis://127.0.0.1:1/0"  # no server listens there
NEVER = 3600.0


@pytest.fixture(scope="module")
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(derived_role_url(database_url, "mercato_orders"))
    yield make_sessions(engine)
    await engine.dispose()


async def append(sessions: Sessions, customer: UUID, key: str, order: UUID | None = None) -> int | None:
    async with sessions.begin() as session:
        order = order or uuid4()
        data = {"orderId": str(order), "type": "order.placed", "status": "pending", "paymentStatus": "none"}
        return await order_log.append(
            session, customer_id=customer, order_id=order, event_key=key, type=EventType.ORDER_PLACED, data=data
        )


async def append_many(sessions: Sessions, customer: UUID, count: int) -> None:
    """Many events in one statement; the counter moves with them as `append` would move it."""
    async with sessions.begin() as session:
        connection = await session.connection()
        start = await events.last_seq(session, customer)
        await connection.execute(
            text(
                "INSERT INTO orders.customer_event (customer_id, seq, order_id, event_key, type, data) "
                "SELECT :customer, :start + n, gen_random_uuid(), n::text, 'order.placed', CAST(:data AS jsonb) "
                "FROM generate_series(1, :count) AS n"
            ),
            {"customer": customer, "start": start, "count": count, "data": json.dumps({"status": "pending"})},
        )
        await connection.execute(
            text(
                "INSERT INTO orders.customer_counters VALUES (:customer, :last) "
                "ON CONFLICT (customer_id) DO UPDATE SET last_seq = excluded.last_seq"
            ),
            {"customer": customer, "last": start + count},
        )


async def stored(sessions: Sessions, customer: UUID) -> list[int]:
    async with sessions() as session:
        return [event.seq for event in await events.after(session, customer, 0)]


class Reader:
    """The hub's way to the log, which counts its questions and may be out of order for a while."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.questions: list[Mapping[UUID, int]] = []
        self.broken = False

    async def __call__(self, cursors: Mapping[UUID, int]) -> list[CustomerEvent]:
        self.questions.append(dict(cursors))
        if self.broken:
            raise ConnectionError("the database is away")
        async with self.sessions() as session:
            return await events.newer(session, cursors)


@asynccontextmanager
async def running_hub(reader: Reader, url: str, poll_seconds: float) -> AsyncIterator[EventHub]:
    redis = make_redis(url)
    hub = EventHub(reader, redis, poll_seconds)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
        await redis.aclose()


async def take(subscription: Subscription, count: int, seconds: float = 10) -> list[int]:
    async with asyncio.timeout(seconds):
        return [(await anext(subscription)).seq for _ in range(count)]


async def is_heard(redis_url: str) -> None:
    """Wait until some hub listens: a hint sent before that is lost, as it may be."""
    redis = make_redis(redis_url)
    async with asyncio.timeout(10):
        while not dict(await redis.pubsub_numsub("mercato:events")).get("mercato:events"):  # noqa: ASYNC110 (Valkey tells nobody)
            await asyncio.sleep(0.02)
    await redis.aclose()


# --- the log -------------------------------------------------------------------------------------------------------


async def test_fifty_writers_of_one_customer_leave_no_hole(sessions: Sessions) -> None:
    customer = uuid4()
    given = await asyncio.gather(*(append(sessions, customer, f"k{n}") for n in range(50)))
    assert sorted(seq for seq in given if seq) == list(range(1, 51))
    assert await stored(sessions, customer) == list(range(1, 51))


async def test_a_repeated_event_is_ignored_and_takes_no_number(sessions: Sessions) -> None:
    customer, order = uuid4(), uuid4()
    assert await append(sessions, customer, "order.placed", order) == 1
    assert await append(sessions, customer, "order.placed", order) is None
    assert await append(sessions, customer, "order.reserved", order) == 2
    assert await append(sessions, customer, "order.placed", uuid4()) == 3


async def test_of_twenty_writers_of_the_same_event_one_writes(sessions: Sessions) -> None:
    customer, order = uuid4(), uuid4()
    given = await asyncio.gather(*(append(sessions, customer, "order.placed", order) for _ in range(20)))
    assert [seq for seq in given if seq is not None] == [1]
    assert await append(sessions, customer, "order.reserved", order) == 2


async def test_a_writer_that_rolls_back_leaves_no_hole(sessions: Sessions) -> None:
    customer = uuid4()
    await append(sessions, customer, "first")
    with suppress(ZeroDivisionError):
        async with sessions.begin() as session:
            await order_log.append(
                session, customer_id=customer, order_id=uuid4(), event_key="x", type=EventType.ORDER_PLACED, data={}
            )
            raise ZeroDivisionError
    assert await append(sessions, customer, "second") == 2


async def test_a_reader_never_sees_an_event_before_those_that_precede_it(sessions: Sessions) -> None:
    customer = uuid4()
    writers = asyncio.gather(*(append(sessions, customer, f"k{n}") for n in range(40)))
    while not writers.done():
        seen = await stored(sessions, customer)
        assert seen == list(range(1, len(seen) + 1))
    await writers


async def test_the_log_cannot_be_rewritten_by_the_service(sessions: Sessions) -> None:
    await append(sessions, uuid4(), "k")
    for statement in ("UPDATE orders.customer_event SET type = 'x'", "DELETE FROM orders.customer_event"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with sessions.begin() as session:
                await (await session.connection()).execute(text(statement))


async def test_an_event_tells_when_it_happened_and_belongs_to_one_order(sessions: Sessions) -> None:
    customer, order = uuid4(), uuid4()
    await append(sessions, customer, "a", order)
    await append(sessions, customer, "b")
    await append(sessions, customer, "c", order)
    async with sessions() as session:
        found = await events.after(session, customer, 0, order_id=order)
        assert [event.seq for event in found] == [1, 3]
        assert found[0].data["at"].endswith("+00:00")
        assert await events.last_seq(session, customer) == 3
        assert await events.last_seq_of_order(session, order) == 3
        assert await events.last_seq(session, uuid4()) == 0
        assert await events.newer(session, {}) == []


# --- the hub -------------------------------------------------------------------------------------------------------


async def test_a_hint_brings_an_event_at_once(sessions: Sessions, redis_url: str) -> None:
    customer, redis = uuid4(), make_redis(redis_url)
    async with running_hub(Reader(sessions), redis_url, NEVER) as hub, hub.subscribe(customer, 0) as subscription:
        await is_heard(redis_url)
        for n in range(1, 6):
            await append(sessions, customer, f"k{n}")
            await publish_hint(redis, customer)
            assert await take(subscription, 1, seconds=1) == [n]
    await redis.aclose()


async def test_without_valkey_events_are_late_but_all_there(sessions: Sessions) -> None:
    customer, redis = uuid4(), make_redis(NOBODY)
    async with running_hub(Reader(sessions), NOBODY, 0.2) as hub, hub.subscribe(customer, 0) as subscription:
        for n in range(1, 4):
            await append(sessions, customer, f"k{n}")
            await publish_hint(redis, customer)  # says nothing about it
            assert await take(subscription, 1, seconds=2) == [n]
    await redis.aclose()


async def test_hints_come_again_after_valkey_was_away(sessions: Sessions, redis_url: str) -> None:
    customer, redis = uuid4(), make_redis(redis_url)
    async with (
        cuttable(redis_url) as (url, cut),
        running_hub(Reader(sessions), url, NEVER) as hub,
        hub.subscribe(customer, 0) as subscription,
    ):
        await is_heard(redis_url)
        await append(sessions, customer, "before")
        await publish_hint(redis, customer)
        assert await take(subscription, 1) == [1]
        await cut()
        await append(sessions, customer, "meanwhile")  # nobody hears this hint; the new connection makes up for it
        assert await take(subscription, 1) == [2]
        await append(sessions, customer, "after")
        await publish_hint(redis, customer)
        assert await take(subscription, 1) == [3]
    await redis.aclose()


async def test_a_stream_goes_on_when_the_database_is_back(sessions: Sessions) -> None:
    customer, reader = uuid4(), Reader(sessions)
    reader.broken = True
    async with running_hub(reader, NOBODY, 0.05) as hub, hub.subscribe(customer, 0) as subscription:
        await append(sessions, customer, "k")
        with pytest.raises(TimeoutError):
            await take(subscription, 1, seconds=0.5)
        reader.broken = False
        assert await take(subscription, 1) == [1]


async def test_random_disconnects_lose_and_double_nothing(sessions: Sessions, redis_url: str) -> None:
    customer, total, dice = uuid4(), 150, random.Random(7)
    redis = make_redis(redis_url)

    async def write() -> None:
        for n in range(total):
            await append(sessions, customer, f"k{n}")
            if dice.random() < 0.5:
                await publish_hint(redis, customer)

    async with running_hub(Reader(sessions), redis_url, 0.1) as hub:
        writer = asyncio.create_task(write())
        seen: list[int] = []
        connections = 0
        while len(seen) < total:
            connections += 1
            async with hub.subscribe(customer, seen[-1] if seen else 0) as subscription:
                seen += await take(subscription, min(dice.randint(1, 9), total - len(seen)))
        await writer
    assert connections > 10
    assert seen == list(range(1, total + 1))
    await redis.aclose()


async def test_a_frozen_reader_costs_a_bounded_queue_and_misses_nothing(sessions: Sessions) -> None:
    customer, total = uuid4(), 5 * QUEUE_SIZE + 7
    async with running_hub(Reader(sessions), NOBODY, 0.05) as hub, hub.subscribe(customer, 0) as frozen:
        await append_many(sessions, customer, 1)
        assert await take(frozen, 1) == [1]
        async with hub.subscribe(customer, 1) as lively:
            await append_many(sessions, customer, total)
            assert await take(lively, total) == list(range(2, total + 2))
        assert 0 < frozen.queued <= QUEUE_SIZE
        assert await take(frozen, total) == list(range(2, total + 2))


async def test_streams_at_different_places_of_one_log_all_get_their_own(sessions: Sessions, redis_url: str) -> None:
    customer, total = uuid4(), 2 * PAGE
    await append_many(sessions, customer, total)
    places = [0, 1, PAGE - 1, PAGE, PAGE + 1, total - 1]
    async with running_hub(Reader(sessions), redis_url, NEVER) as hub:
        open_ones = [hub.subscribe(customer, place) for place in places]
        got = await asyncio.gather(*(take(each, total - each.tail) for each in open_ones))
    assert got == [list(range(place + 1, total + 1)) for place in places]


async def test_all_live_customers_are_read_in_one_question(sessions: Sessions) -> None:
    reader = Reader(sessions)
    customers = [uuid4() for _ in range(20)]
    async with running_hub(reader, NOBODY, 0.1) as hub:
        open_ones = [hub.subscribe(customer, 0) for customer in customers]
        waiting = asyncio.gather(*(take(each, 1) for each in open_ones))
        before = monotonic()
        await asyncio.gather(*(append(sessions, customer, "k") for customer in customers))
        assert await waiting == [[1]] * 20
        polls = (monotonic() - before) / 0.1
        assert any(len(question) == 20 for question in reader.questions)
        assert len(reader.questions) <= polls + 20


async def test_a_stopped_hub_ends_its_streams_and_those_that_come_late(sessions: Sessions) -> None:
    async with running_hub(Reader(sessions), NOBODY, NEVER) as hub:
        subscription = hub.subscribe(uuid4(), 0)
        waiting = asyncio.create_task(anext(subscription, None))
        await asyncio.sleep(0)
        await hub.stop()
        assert await asyncio.wait_for(waiting, 1) is None
        assert await asyncio.wait_for(anext(hub.subscribe(uuid4(), 0), None), 1) is None


@asynccontextmanager
async def cuttable(redis_url: str) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """An address in front of Valkey and a way to cut every connection made through it."""
    target = urlsplit(redis_url)
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(target.hostname, target.port)
        writers.extend((writer, back_writer))
        await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

    async def cut() -> None:
        for writer in writers:
            writer.transport.abort()
        writers.clear()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"redis://127.0.0.1:{port}{target.path}", cut
    server.close()
    await cut()
