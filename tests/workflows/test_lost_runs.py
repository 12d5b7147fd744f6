"""A run that begins where another one was lost: nobody knows how far that one came, so nothing of it may be forgotten.

It was lost because its worker died in the one workflow task of the fast path, or because staff reset or terminated it.
"""

import asyncio
from typing import Any

import pytest

from models.messages import ProcessorNews, StaffAction
from models.types import OrderStatus, PaymentStatus
from tests.workflows.shop import FakeShop, checkout_input
from workflows.checkout import CheckoutWorkflow

SUE = StaffAction(actor="sue", reason="the customer rang")


def shop_of_a_lost_run() -> FakeShop:
    """Lines written, stock held, money held; the order's row says that it is pending."""
    shop = FakeShop()
    shop.begun, shop.held, shop.money = True, True, "held"
    return shop


async def _cancelled_during(shop: FakeShop, step: str, start: Any) -> Any:
    """The outcome of a cancel that is taken while `step` is under way."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait_there() -> None:
        reached.set()
        await go_on.wait()

    shop.on_call[step] = wait_there
    handle = await start(shop, checkout_input(fast_path=False, round_seconds=60))
    await reached.wait()
    cancelling = asyncio.create_task(handle.execute_update(CheckoutWorkflow.cancel, SUE))
    await asyncio.sleep(0.3)  # taken or refused by then; with `prepare` still under way
    go_on.set()
    return handle, await cancelling


@pytest.mark.parametrize("step", ["prepare", "reserve"])
async def test_a_cancel_gives_back_what_the_lost_run_held(start: Any, step: str) -> None:
    shop = shop_of_a_lost_run()
    _, outcome = await _cancelled_during(shop, step, start)
    assert outcome.status is OrderStatus.CANCELLED
    assert not shop.held
    assert shop.money == "none"


async def test_a_cancel_cannot_undo_what_the_lost_run_sold(start: Any) -> None:
    """It had committed the stock and died before the order was confirmed: from there it only goes forward."""
    shop = shop_of_a_lost_run()
    shop.committed = True
    handle, outcome = await _cancelled_during(shop, "prepare", start)
    assert outcome.status is OrderStatus.CONFIRMED
    assert (await handle.result()).payment_status is PaymentStatus.CAPTURED
    assert "close" not in shop.calls
    assert shop.money == "taken"


async def test_a_repair_does_not_void_what_is_sold_while_it_looks(start: Any) -> None:
    """The terminated run's worker was frozen in the middle of `confirm` and wakes up after the repair has looked."""
    shop = shop_of_a_lost_run()

    async def sold_meanwhile() -> None:
        shop.committed = True

    shop.on_call["release"] = shop.on_call["void"] = sold_meanwhile
    handle = await start(shop, checkout_input(repair=True))
    result = await handle.result()
    assert (result.status, result.payment_status) == (OrderStatus.CONFIRMED, PaymentStatus.CAPTURED)
    assert "void" not in shop.calls
    assert shop.money == "taken"


async def test_a_rerun_that_sells_ends_the_attention_that_the_lost_run_asked_for(start: Any) -> None:
    shop = shop_of_a_lost_run()
    shop.needs_attention = True
    handle = await start(shop, checkout_input())
    assert (await handle.result()).status is OrderStatus.CONFIRMED
    assert [attention.step for attention in shop.attention] == [""]


async def test_a_repair_that_goes_forward_ends_the_attention(start: Any) -> None:
    shop = shop_of_a_lost_run()
    shop.present, shop.needs_attention = OrderStatus.CONFIRMED, True
    handle = await start(shop, checkout_input(repair=True))
    assert (await handle.result()).status is OrderStatus.CONFIRMED
    assert shop.count()["clear_attention"] == 1


async def test_a_step_that_never_answers_stands_still_and_is_tried_again(start: Any) -> None:
    shop = FakeShop()

    async def hang() -> None:
        if shop.count()["reserve"] < 3:
            await asyncio.sleep(3600)

    shop.on_call["reserve"] = hang
    handle = await start(shop, checkout_input(attempt_seconds=1))
    assert (await handle.result()).status is OrderStatus.CONFIRMED


async def test_a_cancel_left_as_a_signal_counts_like_one_that_was_answered(start: Any) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    await handle.execute_update(CheckoutWorkflow.placed)
    for _ in range(2):
        await handle.signal(CheckoutWorkflow.cancel_soon, SUE)
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert (shop.held, shop.money) == (False, "none")
    assert shop.closed is not None
    assert (shop.closed.actor, shop.closed.reason) == (SUE.actor, SUE.reason)


def test_a_cancel_left_as_a_signal_comes_too_late_for_a_sold_order() -> None:
    checkout = CheckoutWorkflow(checkout_input())
    checkout._past_return = True
    checkout.cancel_soon(SUE)
    assert not checkout._is_cancelled()


async def test_an_order_sold_by_a_card_that_was_forgotten_goes_forward_when_it_is_told(start: Any) -> None:
    """The worker that was brought the card sold the order and died; Temporal keeps such an update in memory only."""
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    await handle.execute_update(CheckoutWorkflow.placed)
    news = ProcessorNews(event_id="reconciliation", type="order.confirmed", intent_id="")
    await handle.signal(CheckoutWorkflow.processor_news, news)  # nothing is so: it waits on
    assert (await handle.query(CheckoutWorkflow.status)).status is OrderStatus.ACTION_REQUIRED
    shop.present, shop.committed, shop.money = OrderStatus.CONFIRMED, True, "held"
    await handle.signal(CheckoutWorkflow.processor_news, news)
    result = await handle.result()
    assert (result.status, result.payment_status) == (OrderStatus.CONFIRMED, PaymentStatus.CAPTURED)
    assert "void" not in shop.calls


async def test_an_order_sold_by_a_card_that_was_forgotten_and_then_cancelled_is_left_as_it_is(start: Any) -> None:
    """The worker that was brought the card sold the order and died; the shopper cancelled it before the deadline."""
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad"))
    await handle.execute_update(CheckoutWorkflow.placed)
    shop.present, shop.restocked = OrderStatus.CANCELLED, True
    assert (await handle.result()).status is OrderStatus.CANCELLED
    assert not {"void", "close", "mark_attention"} & set(shop.calls)


@pytest.mark.parametrize("present", [OrderStatus.CONFIRMED, OrderStatus.CANCELLED])
async def test_a_rerun_of_what_was_sold_and_is_cancelled_undoes_nothing(start: Any, present: OrderStatus) -> None:
    """Its worker sold the order and died; before another one took over, the shopper had cancelled it."""
    shop = shop_of_a_lost_run()
    shop.released_meanwhile = shop.restocked = True

    async def learn() -> None:
        shop.present = present

    shop.on_call["release"] = learn
    handle = await start(shop, checkout_input())
    assert (await handle.result()).status is present
    assert not {"void", "close", "mark_attention"} & set(shop.calls)
