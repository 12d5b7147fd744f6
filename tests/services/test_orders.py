"""The order's row: facts that come late or twice change nothing, and nothing follows an end."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from core.db import Sessions, make_engine, make_sessions
from core.settings import derived_role_url
from models.messages import CheckoutInput, OrderLine
from models.orders import Order
from models.types import Money, OrderStatus, PaymentStatus, uuid7
from services import orders
from tests import order_log
from tests.services.racing import somebody_waits_for

PRICE = Money(amount=250)


class Case:
    """One order; functions of the orders service run as its activities run them: each statement by itself."""

    def __init__(self, sessions: Sessions, order_id: UUID) -> None:
        self._sessions, self.order_id = sessions, order_id

    async def run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        async with self._sessions() as session:
            return await work(session, self.order_id, *args, **kwargs)

    async def state(self) -> tuple[OrderStatus, PaymentStatus]:
        order: Order = await self.run(orders.get)
        return OrderStatus(order.status), PaymentStatus(order.payment_status)

    async def rows(self, statement: str) -> list[Any]:
        async with self._sessions() as session:
            connection = await session.connection()
            return list((await connection.execute(text(statement), {"order_id": self.order_id})).scalars())

    async def told(self) -> list[str]:
        return await self.rows("SELECT type FROM orders.customer_event WHERE order_id = :order_id ORDER BY seq")


@pytest.fixture(scope="module")
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(derived_role_url(database_url, "mercato_orders"))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def case(sessions: Sessions) -> Case:
    checkout = CheckoutInput(order_id=uuid7(), customer_id=uuid4(), payment_method_id="pm_card_visa")
    async with sessions.begin() as session:
        await order_log.place(session, checkout)
    return Case(sessions, checkout.order_id)


async def test_a_decline_told_late_does_not_hide_that_another_card_holds_the_money(case: Case) -> None:
    await case.run(orders.record_authorized, PRICE)
    await case.run(orders.record_declined, 1, "insufficient_funds", None)
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.AUTHORIZED)
    assert await case.told() == ["order.placed", "payment.authorized"]


async def test_a_doubt_told_late_does_not_hide_that_the_money_is_held(case: Case) -> None:
    await case.run(orders.record_authorized, PRICE)
    await case.run(orders.record_payment_unknown, 1)
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.AUTHORIZED)


async def test_a_doubt_is_ended_by_a_decline_and_by_an_authorization(case: Case) -> None:
    await case.run(orders.record_payment_unknown, 1)
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.UNKNOWN)
    await case.run(orders.record_declined, 1, "insufficient_funds", None)
    assert await case.state() == (OrderStatus.ACTION_REQUIRED, PaymentStatus.DECLINED)
    await case.run(orders.record_authorized, PRICE)
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.AUTHORIZED)


async def test_a_cancel_written_twice_is_in_the_audit_once(case: Case) -> None:
    for _ in range(2):
        await case.run(orders.end, OrderStatus.CANCELLED, actor="sue", reason="the customer rang")
    assert await case.rows("SELECT actor FROM orders.audit WHERE order_id = :order_id") == ["sue"]
    assert await case.told() == ["order.placed", "order.cancelled"]


@pytest.mark.parametrize("ending", [OrderStatus.REJECTED, OrderStatus.EXPIRED, OrderStatus.CANCELLED])
async def test_nothing_follows_an_end(case: Case, ending: OrderStatus) -> None:
    await case.run(orders.mark_attention, "void", "processor is down")
    await case.run(orders.end, ending)
    told = await case.told()
    for work, arguments in (
        (orders.record_authorized, (PRICE,)),
        (orders.record_declined, (1, "insufficient_funds", None)),
        (orders.record_payment_unknown, (1,)),
        (orders.confirm, ()),
        (orders.record_captured, (PRICE,)),
        (orders.record_voided, ()),
        (orders.mark_attention, ("void", "processor is down")),
        (orders.clear_attention, ()),
        (orders.end, (OrderStatus.CANCELLED,)),
    ):
        await case.run(work, *arguments)
    assert await case.told() == told
    order = await case.run(orders.get)
    assert (order.status, order.needs_attention, order.attention) == (ending, False, None)


@pytest.mark.parametrize(
    ("fact", "arguments", "payment"),
    [
        (orders.record_payment_unknown, (1,), PaymentStatus.VOIDED),
        (orders.record_authorized, (PRICE,), PaymentStatus.VOIDED),
        (orders.record_declined, (1, "insufficient_funds", None), PaymentStatus.DECLINED),
        (orders.record_reserved, (datetime.now(UTC),), PaymentStatus.NONE),
    ],
)
async def test_an_end_leaves_no_doubt_and_no_hold(
    case: Case, fact: Any, arguments: tuple[Any, ...], payment: PaymentStatus
) -> None:
    await case.run(fact, *arguments)
    await case.run(orders.end, OrderStatus.EXPIRED)
    assert await case.state() == (OrderStatus.EXPIRED, payment)
    statement = (
        "SELECT data ->> 'paymentStatus' FROM orders.customer_event WHERE order_id = :order_id ORDER BY seq DESC"
    )
    assert (await case.rows(statement))[0] == payment


async def test_what_is_said_of_a_card_after_the_void_comes_late(case: Case) -> None:
    await case.run(orders.record_authorized, PRICE)
    await case.run(orders.record_voided)
    told = await case.told()
    for work, arguments in (
        (orders.record_payment_unknown, (1,)),
        (orders.record_declined, (1, "insufficient_funds", None)),
        (orders.record_action_required, (1, "http://bank.test", None)),
        (orders.record_authorized, (PRICE,)),
    ):
        await case.run(work, *arguments)
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.VOIDED)
    assert await case.told() == told


async def test_a_doubt_told_late_does_not_hide_that_the_shopper_has_to_act(case: Case) -> None:
    """Nobody could send another card, or find the bank's page, while the row said that the payment was in doubt."""
    await case.run(orders.record_declined, 1, "insufficient_funds", None)
    await case.run(orders.record_payment_unknown, 1)
    await case.run(orders.record_action_required, 1, "http://bank.test/1", None)
    assert await case.state() == (OrderStatus.ACTION_REQUIRED, PaymentStatus.DECLINED)
    await case.run(orders.record_action_required, 2, "http://bank.test/2", None)
    await case.run(orders.record_payment_unknown, 2)
    await case.run(orders.record_declined, 1, "card_declined", None)
    order = await case.run(orders.get)
    assert order.action_required["url"] == "http://bank.test/2"
    assert await case.told() == ["order.placed", "payment.declined", "payment.action_required"]
    await case.run(orders.record_payment_unknown, 3)
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.UNKNOWN)


async def test_a_capture_told_late_does_not_hide_the_refund(case: Case) -> None:
    await case.run(orders.record_authorized, PRICE)
    await case.run(orders.confirm)
    await case.run(orders.record_refunded, PRICE)
    await case.run(orders.record_captured, PRICE)
    await case.run(orders.cancel_sold, "the customer rang")
    assert await case.state() == (OrderStatus.CANCELLED, PaymentStatus.REFUNDED)


async def test_a_hold_that_lapsed_is_not_held_when_the_sale_is_cancelled(case: Case) -> None:
    await case.run(orders.record_authorized, PRICE)
    await case.run(orders.confirm)
    await case.run(orders.cancel_sold, "the customer rang")
    assert await case.state() == (OrderStatus.CANCELLED, PaymentStatus.VOIDED)


async def test_everything_told_at_once_leaves_no_hole_and_hides_no_hold(case: Case) -> None:
    facts = [
        (orders.record_payment_unknown, (1,)),
        (orders.record_declined, (1, "insufficient_funds", None)),
        (orders.record_authorized, (PRICE,)),
        (orders.mark_attention, ("void", "processor is down")),
        (orders.clear_attention, ()),
    ]
    told = await asyncio.gather(*(case.run(work, *given) for work, given in facts * 5), return_exceptions=True)
    assert {type(one) for one in told} <= {Order, IntegrityError}, "twice another mark in the same moment: asked again"
    await asyncio.gather(*(case.run(work, *given) for work, given in facts[:3]))
    assert await case.state() == (OrderStatus.PENDING, PaymentStatus.AUTHORIZED)
    seqs = await case.rows("SELECT seq FROM orders.customer_event WHERE order_id = :order_id ORDER BY seq")
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_fact_told_twice_at_once_is_told_once(case: Case, sessions: Sessions) -> None:
    async with sessions.begin() as first:
        await orders.record_reserved(first, case.order_id, datetime.now(UTC))
        second = asyncio.create_task(case.run(orders.record_reserved, datetime.now(UTC)))
        await somebody_waits_for(first, sessions)
    assert (await second).status == OrderStatus.PENDING
    await case.run(orders.confirm)
    assert await case.rows("SELECT seq FROM orders.customer_event WHERE order_id = :order_id ORDER BY seq") == [1, 2, 3]


async def test_two_who_cancel_at_once_leave_the_first_ones_wish(case: Case, sessions: Sessions) -> None:
    async with sessions.begin() as first:
        await orders.request_cancel(first, case.order_id, "sue", "called")
        second = asyncio.create_task(case.run(orders.request_cancel, "tom", "wrote"))
        await somebody_waits_for(first, sessions)
    assert (await second).cancel_requested == {"actor": "sue", "reason": "called"}
    assert await case.rows("SELECT actor FROM orders.audit WHERE order_id = :order_id") == ["sue"]


async def test_an_order_is_read_beside_a_column_that_a_later_version_adds(case: Case, database_url: str) -> None:
    line = OrderLine(product_id=1, sku="A-1", name="Thing", quantity=2, unit_price=PRICE, line_total=PRICE * 2)
    await case.run(orders.write_prepared, [line], shipping=Money(amount=0), tax=Money(amount=0))
    engine = make_engine(database_url)
    async with make_sessions(engine).begin() as session:
        await (await session.connection()).execute(text("ALTER TABLE orders.orders ADD COLUMN later text"))
        assert (await orders.with_lines(session, case.order_id))[1] == [line]
        assert (await orders.confirm(session, case.order_id)).status == OrderStatus.CONFIRMED
        await session.rollback()
    await engine.dispose()


async def test_of_what_is_prepared_at_once_one_stands_and_all_are_told_its_total(case: Case) -> None:
    def lines(quantity: int) -> list[OrderLine]:
        total = PRICE * quantity
        return [OrderLine(product_id=1, sku="A-1", name="Thing", quantity=quantity, unit_price=PRICE, line_total=total)]

    nothing = Money(amount=0)
    totals = await asyncio.gather(
        *(case.run(orders.write_prepared, lines(quantity), shipping=nothing, tax=nothing) for quantity in range(1, 9))
    )
    _, written = await case.run(orders.with_lines)
    assert {total.amount for total in totals} == {written[0].line_total.amount}
