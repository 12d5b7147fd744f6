"""What was taken is given back, all of it and once: on a real database, a real processor."""

import asyncio

import pytest

from models.errors import Conflict, Unavailable
from models.types import PaymentStatus
from services import refunds
from services.intents import PaymentUnknown
from tests.services.paying import BAD, KEY, Purchase, insist

REFUNDED = PaymentStatus.REFUNDED


async def paid(order: Purchase) -> Purchase:
    await order.authorize()
    await order.capture()
    return order


async def given_back(order: Purchase) -> list[tuple[int, int]]:
    return [(intent["captured"], intent["refunded"]) for intent in await order.books()]


@pytest.mark.parametrize(
    "mode", [None, "reply_lost", "error_500_after", "error_500_stored", "error_500", "drop", "error_429", "silent"]
)
async def test_a_refund_that_went_wrong_gives_back_once(order: Purchase, mode: str | None) -> None:
    await paid(order)
    if mode:
        await order.fault(mode, "refund", seconds=3)
    refund = await insist(order.refund)
    assert (refund.status, refund.amount) == (REFUNDED, order.amount)
    assert (await order.refund()).status is REFUNDED
    assert await given_back(order) == [(4999, 4999)]
    assert await order.ledger() == ["authorize", "capture", "refund"]
    assert await order.status() == "refunded"


async def test_refunds_at_once_give_back_once(order: Purchase) -> None:
    await paid(order)
    results = await asyncio.gather(*(insist(order.refund, times=200) for _ in range(4)))
    assert {result.status for result in results} == {REFUNDED}
    assert await given_back(order) == [(4999, 4999)]
    assert await order.ledger() == ["authorize", "capture", "refund"]


async def test_money_that_is_only_held_is_waited_for(order: Purchase) -> None:
    await order.authorize()
    with pytest.raises(Unavailable):
        await order.refund()
    await order.capture()
    assert (await order.refund()).status is REFUNDED


async def test_where_nothing_was_taken_there_is_nothing_to_give_back(order: Purchase) -> None:
    assert (await order.refund()).status is PaymentStatus.NONE
    await order.authorize(BAD)
    assert (await order.refund()).status is PaymentStatus.DECLINED
    await order.void()
    assert (await order.refund()).status in (PaymentStatus.DECLINED, PaymentStatus.NONE)
    assert await given_back(order) == [(0, 0)]


async def test_what_nobody_knows_is_not_given_back(order: Purchase) -> None:
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    with pytest.raises(Unavailable):
        await order.refund()


async def test_what_was_given_back_by_hand_at_the_processor_counts(order: Purchase) -> None:
    await paid(order)
    intent = (await order.payment()).intent_id
    (await order.admin.post("/v1/refunds", data={"payment_intent": intent}, headers=KEY)).raise_for_status()
    assert (await order.refund()).status is REFUNDED
    assert await given_back(order) == [(4999, 4999)]


async def test_what_is_given_back_is_neither_taken_nor_voided_again(order: Purchase) -> None:
    await paid(order)
    await order.refund()
    assert (await order.capture()).status is REFUNDED
    assert (await order.authorize()).status is PaymentStatus.AUTHORIZED, "an attempt's own answer stands"
    with pytest.raises(Conflict) as raised:
        await order.void()
    assert raised.value.code == "already_captured"
    assert await order.money() == (0, 4999, 0)
    assert await order.ledger() == ["authorize", "capture", "refund"]


async def test_a_refund_is_never_booked_for_money_that_is_only_held(order: Purchase) -> None:
    await order.authorize()
    async with order.sessions() as session:
        await (await session.connection()).execute(refunds._GIVE_BACK, {"order_id": order.order_id})
    assert await order.status() == "authorized"
    assert await order.ledger() == ["authorize"]
