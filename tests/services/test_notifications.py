"""One message for one (order, kind, channel)."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.types import Service, uuid7
from services import notifications


@pytest.fixture(scope="module")
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(Settings(database_url=database_url).service_database_url(Service.NOTIFICATIONS))
    yield make_sessions(engine)
    await engine.dispose()


async def queue(
    sessions: Sessions, order_id: UUID, customer_id: UUID, kind: str = "order.confirmed", channel: str = "email"
) -> bool:
    async with sessions.begin() as session:
        return await notifications.queue(
            session,
            order_id=order_id,
            customer_id=customer_id,
            kind=kind,
            channel=channel,
            data={"number": "AAAAA-AAAAA", "total": {"amount": 100, "currency": "EUR"}},
        )


async def test_a_repeat_queues_nothing_even_when_many_come_at_once(sessions: Sessions) -> None:
    order_id, customer_id = uuid7(), uuid7()
    results = await asyncio.gather(*(queue(sessions, order_id, customer_id) for _ in range(10)))
    assert sorted(results) == [False] * 9 + [True]
    async with sessions() as session:
        [message] = await notifications.of_customer(session, customer_id, None, 10)
    assert (message.order_id, message.kind, message.channel, message.state) == (
        order_id,
        "order.confirmed",
        "email",
        "queued",
    )
    assert message.data["total"] == {"amount": 100, "currency": "EUR"}


async def test_another_kind_or_channel_is_another_message(sessions: Sessions) -> None:
    order_id, customer_id = uuid7(), uuid7()
    assert await queue(sessions, order_id, customer_id)
    assert await queue(sessions, order_id, customer_id, kind="order.cancelled")
    assert await queue(sessions, order_id, customer_id, channel="sms")


async def test_a_customer_sees_only_own_messages_newest_first(sessions: Sessions) -> None:
    mine, other = uuid7(), uuid7()
    orders = [uuid7() for _ in range(3)]
    for order_id in orders:
        await queue(sessions, order_id, mine)
        await queue(sessions, uuid7(), other)
    async with sessions() as session:
        found = await notifications.of_customer(session, mine, None, 10)
        assert {message.order_id for message in found} == set(orders)
        assert [message.id for message in found] == sorted((message.id for message in found), reverse=True)
        page = await notifications.of_customer(session, mine, found[0].id, 10)
        assert [message.id for message in page] == [message.id for message in found[1:]]
