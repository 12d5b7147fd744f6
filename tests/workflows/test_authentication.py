"""3-D Secure: the order waits while the card's bank looks at the shopper, and learns what came of it."""

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from models.messages import ProcessorNews, StaffAction, UsePaymentMethod
from models.types import OrderStatus, PaymentStatus
from tests.workflows.shop import FakeShop, checkout_input
from workflows import options
from workflows.checkout import CheckoutWorkflow

SUE = StaffAction(actor="sue", reason="the customer rang")
NEWS = ProcessorNews(event_id="evt_1", type="payment_intent.amount_capturable_updated", intent_id="pi_1")
CARD = "pm_card_authenticationRequired"


@pytest.fixture(params=[True, False], ids=["fast", "regular"])
async def waiting(request: pytest.FixtureRequest, start: Any) -> tuple[FakeShop, Any]:
    """An order that waits for its shopper to authenticate."""
    shop = FakeShop()
    shop.challenged_cards = {CARD}
    handle = await start(shop, checkout_input(payment_method_id=CARD, fast_path=request.param))
    placed = await handle.execute_update(CheckoutWorkflow.placed)
    assert (placed.status, placed.payment_status) == (OrderStatus.ACTION_REQUIRED, PaymentStatus.NONE)
    assert shop.held
    return shop, handle


async def test_the_processors_word_moves_the_order_on(waiting: Any) -> None:
    shop, handle = waiting
    shop.challenge = "passed"
    await handle.signal(CheckoutWorkflow.processor_news, NEWS)
    assert (await handle.result()).payment_status is PaymentStatus.CAPTURED
    assert {asked.request_key for asked in shop.asked} == {"place"}, "the same payment request, asked again"


async def test_without_a_word_it_is_found_out_all_the_same(waiting: Any) -> None:
    shop, handle = waiting
    shop.challenge = "passed"
    result = await handle.result()
    assert result.status is OrderStatus.CONFIRMED
    assert len(shop.asked) == 2


async def test_a_word_that_says_nothing_new_changes_nothing(waiting: Any) -> None:
    shop, handle = waiting
    for _ in range(3):
        await handle.signal(CheckoutWorkflow.processor_news, NEWS)
    outcome = await handle.query(CheckoutWorkflow.status)
    assert outcome.status is OrderStatus.ACTION_REQUIRED
    await handle.execute_update(CheckoutWorkflow.cancel, SUE)
    assert (shop.held, shop.money) == (False, "none")


async def test_a_failed_authentication_waits_for_another_card(waiting: Any) -> None:
    shop, handle = waiting
    shop.challenge = "failed"
    await handle.signal(CheckoutWorkflow.processor_news, NEWS)
    paid = await handle.execute_update(
        CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id="pm_card_visa"), id="card-1"
    )
    assert paid.status is OrderStatus.CONFIRMED
    assert shop.asked[-1].request_key == "card-1"


async def test_another_card_may_be_sent_while_the_bank_waits(waiting: Any) -> None:
    shop, handle = waiting
    paid = await handle.execute_update(
        CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id="pm_card_visa"), id="card-1"
    )
    assert paid.status is OrderStatus.CONFIRMED
    await handle.result()
    assert shop.money == "taken"


async def test_whoever_never_comes_is_too_late(waiting: Any) -> None:
    shop, handle = waiting
    result = await handle.result()
    assert result.status is OrderStatus.EXPIRED
    assert shop.calls[-3:] == ["release", "void", "close"]
    most = 600 / options.LOOK_PAUSE.total_seconds() + 2
    assert 2 <= len(shop.asked) <= most, "asked now and then, and once more at the very end"


async def test_a_cancel_while_the_bank_waits_gives_everything_back(waiting: Any) -> None:
    shop, handle = waiting
    outcome = await handle.execute_update(CheckoutWorkflow.cancel, SUE)
    assert outcome.status is OrderStatus.CANCELLED
    assert (shop.held, shop.money) == (False, "none")


async def test_whoever_tries_out_cards_is_stopped(start: Any) -> None:
    shop = FakeShop()
    cards = [f"pm_bad_{number}" for number in range(options.MOST_CARDS + 1)]
    shop.declined_cards = set(cards)
    handle = await start(shop, checkout_input(payment_method_id=cards[0]))
    await handle.execute_update(CheckoutWorkflow.placed)
    for card in cards[1:]:
        await handle.execute_update(CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id=card))
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(
            CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id="pm_card_visa")
        )
    assert "too many cards" in str(refused.value.cause)
    assert len((await handle.fetch_history()).events) < 1_000
    await handle.execute_update(CheckoutWorkflow.cancel, SUE)
