"""A cancel after the sale: money back, stock back, and never half of it."""

import asyncio
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError

from models.messages import StaffAction
from models.types import OrderStatus, PaymentStatus
from tests.workflows.shop import FakeShop, fulfilment_input
from workflows.fulfilment import FulfilmentWorkflow

SUE = StaffAction(actor="sue", reason="the customer rang")
CANCEL = ["begin_cancel", "refund", "restock", "clear_cart", "cancel_sold"]


def sold() -> FakeShop:
    shop = FakeShop()
    shop.present, shop.money = OrderStatus.CONFIRMED, "taken"
    return shop


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "regular"])
async def test_a_sold_order_is_refunded_restocked_and_cancelled(start: Any, fast_path: bool) -> None:
    shop = sold()
    handle = await start(shop, fulfilment_input(fast_path=fast_path))
    outcome = await handle.execute_update(FulfilmentWorkflow.cancel, SUE)
    assert (outcome.status, outcome.payment_status) == (OrderStatus.CANCELLED, PaymentStatus.REFUNDED)
    assert shop.calls == CANCEL
    assert (await handle.result()).status is OrderStatus.CANCELLED


async def test_a_cancel_that_a_lost_run_had_begun_is_carried_to_its_end(start: Any) -> None:
    shop = sold()
    handle = await start(shop, fulfilment_input(cancel=SUE))
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert shop.calls == CANCEL


async def test_an_order_that_was_never_sold_is_left_alone(start: Any) -> None:
    shop = FakeShop()
    shop.present = OrderStatus.EXPIRED
    handle = await start(shop, fulfilment_input())
    outcome = await handle.execute_update(FulfilmentWorkflow.cancel, SUE)
    assert outcome.status is OrderStatus.EXPIRED
    assert shop.calls == ["begin_cancel"]


@pytest.mark.parametrize("step", CANCEL)
async def test_an_outage_of_any_step_is_told_after_five_attempts_and_ridden_out(start: Any, step: str) -> None:
    shop = sold()
    shop.break_until_marked(step)
    handle = await start(shop, fulfilment_input(cancel=SUE, fast_path=False))
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert [note.step for note in shop.attention] == [step, ""]
    if step in ("refund", "restock", "cancel_sold"):
        assert shop.count()[step] == 5 + 1


async def test_what_staff_have_done_by_hand_counts_as_done(start: Any) -> None:
    shop = sold()
    shop.fail["refund"] = 1000
    handle = await start(shop, fulfilment_input(cancel=SUE, fast_path=False, round_pause_seconds=10_000))
    await _parked(handle, "refund")
    by_transfer = StaffAction(actor="sue", reason="paid back by bank transfer", step="refund")
    await handle.execute_update(FulfilmentWorkflow.resolve, by_transfer)
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert [(entry.actor, entry.action, entry.reason) for entry in shop.audited] == [
        ("sue", "resolve refund", "paid back by bank transfer")
    ]
    assert shop.calls[-1] == "cancel_sold"


async def test_what_cannot_be_done_by_hand_is_refused(start: Any) -> None:
    shop = sold()
    shop.fail["cancel_sold"] = 1000
    handle = await start(shop, fulfilment_input(cancel=SUE, fast_path=False, round_pause_seconds=10_000))
    await _parked(handle, "cancel_sold")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(FulfilmentWorkflow.resolve, SUE)
    assert "what can be done by hand: none of it" in str(refused.value.cause)
    shop.fail["cancel_sold"] = 0
    await handle.execute_update(FulfilmentWorkflow.retry, SUE)
    await handle.result()


async def test_a_second_cancel_is_no_second_refund(start: Any) -> None:
    shop = sold()
    shop.fail["refund"] = 1000
    handle = await start(shop, fulfilment_input(cancel=SUE, fast_path=False, round_pause_seconds=10_000))
    await _parked(handle, "refund")
    for _ in range(3):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(FulfilmentWorkflow.cancel, SUE)
        assert getattr(refused.value.cause, "type", "") == "already_cancelling"
    kinds = [event.event_type async for event in handle.fetch_history_events()]
    assert EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED not in kinds, "a refusal is not kept"
    shop.fail["refund"] = 0
    await handle.execute_update(FulfilmentWorkflow.retry, SUE)
    await handle.result()
    assert shop.count()["restock"] == 1


async def _parked(handle: Any, step: str) -> None:
    while f"{step} stands still" not in (await handle.query(FulfilmentWorkflow.status)).sentence:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
