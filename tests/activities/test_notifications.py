"""`notify`, carried out late: after the shopper has had the order cancelled."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.notifications import NotificationActivities
from models.messages import CheckoutInput, QueueConfirmation
from models.types import Money, Service
from services import notifications, orders
from tests.activities.desk import Desk


async def _notified(desk: Desk, checkout: CheckoutInput, **info: Any) -> bool:
    counter = NotificationActivities(desk.sessions[Service.NOTIFICATIONS], desk.sessions[Service.ORDERS])
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), **info)
    message = QueueConfirmation(
        order_id=checkout.order_id, customer_id=checkout.customer_id, number="AAAAA-BBBBB", total=Money(amount=250)
    )
    return bool(await environment.run(counter.queue_confirmation, message))


async def _sold(desk: Desk) -> CheckoutInput:
    checkout = await desk.placed()
    async with desk.sessions[Service.ORDERS]() as session:
        await orders.confirm(session, checkout.order_id)
    return checkout


async def _cancelling(desk: Desk, checkout: CheckoutInput) -> None:
    async with desk.sessions[Service.ORDERS]() as session:
        await orders.request_cancel(session, checkout.order_id, "sue", "the customer rang")


async def _cancelled(desk: Desk, checkout: CheckoutInput) -> None:
    await _cancelling(desk, checkout)
    async with desk.sessions[Service.ORDERS]() as session:
        await orders.cancel_sold(session, checkout.order_id, "the customer rang")


@pytest.mark.parametrize("info", [{"is_local": False, "attempt": 1}, {"is_local": True, "attempt": 2}])
async def test_a_sold_order_is_told_of_once_however_late(desk: Desk, info: dict[str, Any]) -> None:
    checkout = await _sold(desk)
    assert await _notified(desk, checkout, **info)
    assert not await _notified(desk, checkout, **info)


@pytest.mark.parametrize("info", [{"is_local": False, "attempt": 1}, {"is_local": True, "attempt": 2}])
@pytest.mark.parametrize("wish", [_cancelling, _cancelled])
async def test_nobody_is_told_that_a_cancelled_order_is_confirmed(
    desk: Desk, wish: Callable[[Desk, CheckoutInput], Awaitable[None]], info: dict[str, Any]
) -> None:
    checkout = await _sold(desk)
    await wish(desk, checkout)
    assert not await _notified(desk, checkout, **info)
    async with desk.sessions[Service.NOTIFICATIONS]() as session:
        assert await notifications.without(session, [checkout.order_id], "order.confirmed") == [checkout.order_id]
