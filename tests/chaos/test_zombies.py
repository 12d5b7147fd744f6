"""A worker that stands still in the middle of a step, while another one finishes it, and then goes on (R2)."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from core.faults import Fault, FaultFile, Moment
from tests.chaos.shop import STOCK, Shop
from tests.e2e.shopper import eventually
from tests.stack import Platform

SHORT = [("authorize", "after"), ("capture", "before")]
STEPS = ("prepare", "reserve", "authorize", "confirm", "capture", "clear_cart", "notify")
ALL = [(step, moment) for step in STEPS for moment in ("before", "after")]
IN_STEP_SECONDS = 1.0


@pytest.mark.parametrize(
    ("step", "moment"),
    [*SHORT, *(pytest.param(*point, marks=pytest.mark.long) for point in ALL if point not in SHORT)],
)
async def test_a_worker_that_comes_back_late_does_nothing_twice(
    step: str, moment: Moment, arena: Platform, shop: Shop
) -> None:
    """The delay shows that the worker is in the step: it is used up when it begins."""
    faults = FaultFile(Path(arena.env["MERCATO_FAULTS_FILE"]))
    product, headers = await shop.product(), await shop.shopper()
    faults.add(Fault("zombie", "worker", "delay", step, moment, seconds=IN_STEP_SECONDS))
    zombie = arena.worker.pid
    assert zombie is not None
    order_id = (await shop.place(headers, product)).json()["orderId"]
    try:

        async def in_step() -> bool:
            return not faults.read()

        await eventually(in_step)
        os.kill(zombie, signal.SIGSTOP)
        other = await asyncio.to_thread(arena.start_worker)
        await shop.until(headers, order_id, status="confirmed", paymentStatus="captured")
    finally:
        os.kill(zombie, signal.SIGCONT)
        faults.remove()
    assert arena.worker.pid == zombie
    await arena.worker.stop()  # drains: what it had begun is reported, late
    await arena.worker.restart()
    await other.stop()

    order = await shop.order(headers, order_id)
    assert (order["status"], order["paymentStatus"]) == ("confirmed", "captured")
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["charges"], intent["refunded"]) == (5000, 1, 0)
    assert await shop.stock(product) == (STOCK - 2, 0)
    told = "SELECT count(*) FROM notifications.messages WHERE order_id = $1::uuid"

    async def was_told() -> bool:
        return bool(await shop.database.fetchval(told, order_id))

    await eventually(was_told)
    assert await shop.database.fetchval(told, order_id) == 1


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
