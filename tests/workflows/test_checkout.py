"""Every branch of the checkout, with fake activities and time skipped."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

from models.messages import Refusal, StaffAction, UsePaymentMethod
from models.types import OrderStatus, PaymentStatus
from tests.workflows.shop import TOTAL, FakeShop, checkout_input
from workflows.checkout import CheckoutWorkflow

HAPPY = ["prepare", "reserve", "authorize", "confirm", "capture", "clear_cart", "notify"]
SUE = StaffAction(actor="sue", reason="the customer rang")


@pytest.fixture(params=[True, False], ids=["fast", "regular"])
def fast_path(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_a_checkout_takes_seven_steps_in_order(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    handle = await start(shop, checkout_input(fast_path=fast_path))
    result = await handle.result()
    assert (result.status, result.payment_status, result.total) == (
        OrderStatus.CONFIRMED,
        PaymentStatus.CAPTURED,
        TOTAL,
    )
    assert shop.calls[:4] == HAPPY[:4]
    assert sorted(shop.calls) == sorted(HAPPY)


async def test_the_fast_path_is_one_workflow_task(start: Any) -> None:
    handle = await start(FakeShop(), checkout_input())
    await handle.result()
    events = [event.event_type async for event in handle.fetch_history_events()]
    started = [kind for kind in events if kind == 6]  # EVENT_TYPE_WORKFLOW_TASK_STARTED
    assert len(started) == 1


@pytest.mark.parametrize("step", HAPPY)
async def test_an_outage_of_any_step_is_ridden_out(start: Any, step: str, fast_path: bool) -> None:
    shop = FakeShop()
    shop.fail[step] = 4  # more than the fast budget holds
    handle = await start(shop, checkout_input(fast_path=fast_path))
    result = await handle.result()
    assert result.status is OrderStatus.CONFIRMED
    assert shop.money == "taken"


@pytest.mark.parametrize("step", HAPPY)
async def test_a_long_outage_marks_the_order_and_heals_by_itself(start: Any, step: str) -> None:
    shop = FakeShop()
    shop.break_until_marked(step)
    # a round that is not over before its first attempt is, however busy the machine: that would be another cause
    handle = await start(shop, checkout_input(fast_path=False, round_seconds=60))
    result = await handle.result()
    assert result.status is OrderStatus.CONFIRMED
    assert shop.attention[0].step == step
    assert shop.attention[0].cause == f"{step} is down"
    assert shop.attention[-1].step == ""


async def test_a_step_that_stands_still_prolongs_the_reservation(start: Any) -> None:
    shop = FakeShop()
    shop.break_until_marked("authorize")
    handle = await start(shop, checkout_input(fast_path=False))
    await handle.result()
    assert shop.count()["prolong"] >= 1


@pytest.mark.parametrize("code", ["cart_empty", "price_changed", "cart_changed"])
async def test_a_refused_cart_is_rejected_and_nothing_is_held(start: Any, code: str, fast_path: bool) -> None:
    shop = FakeShop()
    shop.refusal = Refusal(code=code, detail="no")
    handle = await start(shop, checkout_input(fast_path=fast_path))
    result = await handle.result()
    assert result.status is OrderStatus.REJECTED
    assert shop.calls == ["prepare", "close"]
    assert shop.closed is not None
    assert shop.closed.refusal is not None
    assert shop.closed.refusal.code == code


async def test_out_of_stock_is_rejected_without_asking_for_money(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    shop.shortage = True
    handle = await start(shop, checkout_input(fast_path=fast_path))
    result = await handle.result()
    assert result.status is OrderStatus.REJECTED
    assert "authorize" not in shop.calls
    assert shop.closed is not None
    assert shop.closed.refusal is not None
    assert shop.closed.refusal.extra["lines"] == [{"productId": 1, "requested": 1, "available": 0}]


async def test_a_declined_card_keeps_the_reservation_until_another_comes(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad", fast_path=fast_path))
    placed = await handle.execute_update(CheckoutWorkflow.placed)
    assert placed.status is OrderStatus.ACTION_REQUIRED
    assert shop.held
    paid = await handle.execute_update(
        CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id="pm_card_visa"), id="card-1"
    )
    assert paid.status is OrderStatus.CONFIRMED
    assert (await handle.result()).payment_status is PaymentStatus.CAPTURED
    assert shop.count()["reserve"] == 1


async def test_a_second_bad_card_is_answered_and_the_order_waits_on(start: Any) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad", "pm_worse"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    await handle.execute_update(CheckoutWorkflow.placed)
    paid = await handle.execute_update(
        CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id="pm_worse")
    )
    assert paid.status is OrderStatus.ACTION_REQUIRED
    await handle.execute_update(CheckoutWorkflow.cancel, SUE)


async def test_no_other_card_in_time_expires_the_order(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad", fast_path=fast_path))
    result = await handle.result()
    assert result.status is OrderStatus.EXPIRED
    assert shop.calls[-3:] == ["release", "void", "close"]
    assert not shop.held


async def test_cancel_while_waiting_gives_everything_back(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad", fast_path=fast_path))
    await handle.execute_update(CheckoutWorkflow.placed)
    outcome = await handle.execute_update(CheckoutWorkflow.cancel, SUE)
    assert outcome.status is OrderStatus.CANCELLED
    assert shop.calls[-3:] == ["release", "void", "close"]
    assert shop.closed is not None
    assert (shop.closed.actor, shop.closed.reason) == (SUE.actor, SUE.reason)


@pytest.mark.parametrize("step", HAPPY[:3])
async def test_cancel_during_an_outage_before_the_point_of_no_return(start: Any, step: str) -> None:
    shop = FakeShop()
    shop.fail[step] = 1000
    handle = await start(shop, checkout_input(fast_path=False))
    await _parked(handle, step)
    outcome = await handle.execute_update(CheckoutWorkflow.cancel, SUE)
    assert outcome.status is OrderStatus.CANCELLED
    assert not shop.held
    assert shop.money == "none"


async def test_cancel_is_refused_from_the_moment_confirm_is_scheduled(start: Any) -> None:
    shop = FakeShop()
    shop.fail["confirm"] = 1000
    handle = await start(shop, checkout_input(fast_path=False))
    await _parked(handle, "confirm")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(CheckoutWorkflow.cancel, SUE)
    assert getattr(refused.value.cause, "type", "") == "not_cancellable"
    shop.fail["confirm"] = 0
    assert (await handle.result()).status is OrderStatus.CONFIRMED


async def test_staff_must_say_who_acts_and_why(start: Any) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    await handle.execute_update(CheckoutWorkflow.placed)
    for update in (CheckoutWorkflow.cancel, CheckoutWorkflow.retry):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(update, StaffAction())
        assert "say who acts" in str(refused.value.cause)
    await handle.execute_update(CheckoutWorkflow.cancel, SUE)


async def test_retry_by_staff_starts_the_next_round_at_once_and_is_audited(start: Any) -> None:
    shop = FakeShop()
    shop.fail["capture"] = 1000
    handle = await start(shop, checkout_input(fast_path=False, round_pause_seconds=10_000))
    await _parked(handle, "capture")
    shop.fail["capture"] = 0
    await handle.execute_update(CheckoutWorkflow.retry, SUE)
    assert (await handle.result()).payment_status is PaymentStatus.CAPTURED
    assert [(entry.actor, entry.action) for entry in shop.audited] == [("sue", "retry capture")]


async def test_retry_is_refused_when_nothing_stands_still(start: Any) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    await handle.execute_update(CheckoutWorkflow.placed)
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update(CheckoutWorkflow.retry, SUE)
    await handle.execute_update(CheckoutWorkflow.cancel, SUE)


async def test_two_steps_that_stand_still_keep_their_own_decisions(start: Any) -> None:
    shop = FakeShop()
    shop.fail["capture"] = shop.fail["notify"] = 1000
    handle = await start(shop, checkout_input(fast_path=False, round_pause_seconds=100_000))
    await _parked(handle, "capture")
    await _parked(handle, "notify")
    shop.fail["notify"] = 0
    captures = shop.count()["capture"]
    await handle.execute_update(CheckoutWorkflow.retry, StaffAction(actor="sue", reason="mail is back", step="notify"))
    await _gone(handle, "notify")
    assert shop.count()["capture"] == captures
    shop.fail["capture"] = 0
    await handle.execute_update(CheckoutWorkflow.retry, SUE)
    await handle.result()


async def test_a_reservation_released_meanwhile_undoes_the_sale(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    shop.released_meanwhile = True
    handle = await start(shop, checkout_input(fast_path=fast_path))
    result = await handle.result()
    assert result.status is OrderStatus.EXPIRED
    assert shop.money == "none"
    assert "capture" not in shop.calls


@pytest.mark.parametrize("step", ["void", "release", "close"])
async def test_an_undo_that_fails_a_hundred_times_is_carried_to_its_end(start: Any, step: str) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    shop.fail[step] = 100
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    result = await handle.result()
    assert result.status is OrderStatus.EXPIRED
    assert shop.attention[0].step == step
    assert not shop.held


@pytest.mark.parametrize("step", ["reserve", "authorize"])
async def test_a_step_refused_for_good_is_undone(start: Any, step: str, fast_path: bool) -> None:
    shop = FakeShop()
    shop.refuse = {step}
    handle = await start(shop, checkout_input(fast_path=fast_path))
    result = await handle.result()
    assert result.status is OrderStatus.CANCELLED
    assert not shop.held
    assert shop.closed is not None
    assert shop.closed.reason == f"{step} refused"


async def test_a_refused_capture_stands_still_until_staff_have_mended_it(start: Any, fast_path: bool) -> None:
    shop = FakeShop()
    shop.refuse = {"capture"}
    handle = await start(shop, checkout_input(fast_path=fast_path))
    await _parked(handle, "capture")
    shop.refuse = set()
    await handle.execute_update(CheckoutWorkflow.retry, SUE)
    assert (await handle.result()).payment_status is PaymentStatus.CAPTURED


@pytest.mark.parametrize("present", [OrderStatus.CANCELLED, OrderStatus.REJECTED, OrderStatus.EXPIRED])
async def test_a_rerun_of_an_ended_order_ends(start: Any, present: OrderStatus) -> None:
    shop = FakeShop()
    shop.present = present
    handle = await start(shop, checkout_input())
    assert (await handle.result()).status is present
    assert shop.calls == ["prepare"]


async def test_a_rerun_of_a_confirmed_order_only_goes_forward(start: Any) -> None:
    shop = FakeShop()
    shop.present = OrderStatus.CONFIRMED
    handle = await start(shop, checkout_input())
    assert (await handle.result()).payment_status is PaymentStatus.CAPTURED
    assert sorted(shop.calls) == ["capture", "clear_cart", "notify", "prepare"]


async def test_a_repair_of_an_open_order_undoes_it(start: Any) -> None:
    shop = FakeShop()
    shop.held, shop.money = True, "held"
    handle = await start(shop, checkout_input(repair=True))
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert shop.calls == ["prepare", "release", "void", "close"]  # the reservation first: it knows whether it is sold
    assert not shop.held


async def test_a_repair_of_an_order_whose_stock_is_sold_goes_forward(start: Any) -> None:
    shop = FakeShop()
    shop.committed = True
    handle = await start(shop, checkout_input(repair=True))
    result = await handle.result()
    assert (result.status, result.payment_status) == (OrderStatus.CONFIRMED, PaymentStatus.CAPTURED)


async def test_a_workflow_cancellation_during_undo_loses_none_of_it(start: Any) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad", fast_path=False))
    await handle.execute_update(CheckoutWorkflow.placed)
    cancelled = asyncio.Event()

    async def cancel_in_the_middle() -> None:
        if not cancelled.is_set():
            cancelled.set()
            await handle.cancel()

    shop.on_call["void"] = cancel_in_the_middle
    await handle.cancel()
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert shop.calls[-3:] == ["release", "void", "close"]


async def test_a_workflow_cancellation_after_the_sale_changes_nothing(start: Any) -> None:
    shop = FakeShop()
    shop.fail["capture"] = 3
    handle = await start(shop, checkout_input(fast_path=False))
    shop.on_call["capture"] = handle.cancel
    try:
        result = await handle.result()
    except WorkflowFailureError:
        pytest.fail("the checkout must not be cancelled any more")
    assert result.payment_status is PaymentStatus.CAPTURED


async def _parked(handle: Any, step: str) -> None:
    """Wait until `step` stands still."""
    while f"{step} stands still" not in (await handle.query(CheckoutWorkflow.status)).sentence:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _gone(handle: Any, step: str) -> None:
    while f"{step} stands still" in (await handle.query(CheckoutWorkflow.status)).sentence:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
