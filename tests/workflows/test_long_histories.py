"""A run that stands still for weeks goes on in a new history, and forgets nothing of what it was about."""

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateStage

from models.messages import StaffAction, UsePaymentMethod
from models.types import OrderStatus, PaymentStatus
from tests.workflows.shop import FakeShop, checkout_input, fulfilment_input
from workflows import options
from workflows.checkout import CheckoutWorkflow
from workflows.fulfilment import FulfilmentWorkflow

# Hours pass as soon as the result is awaited: what is wanted has to be in the history by then.
ACCEPTED = WorkflowUpdateStage.ACCEPTED
SUE = StaffAction(actor="sue", reason="the customer rang")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "LONG_HISTORY", 30)


def _broken_for(step: str, rounds: int, shop: FakeShop) -> None:
    """An outage that ends after the order was marked so many times, or after a thousand attempts: the server that skips
    time does not always end a round (seen: 16,000 attempts in one of a minute, 10 s apart by its own clock)."""
    shop.fail[step] = 1_000

    async def mend() -> None:
        if shop.count()["mark_attention"] > rounds:
            shop.fail[step] = 0

    shop.on_call["mark_attention"] = mend


@pytest.mark.parametrize("step", ["reserve", "authorize", "confirm"])
async def test_an_outage_of_weeks_ends_in_a_sale(start: Any, step: str) -> None:
    shop = FakeShop()
    _broken_for(step, 10, shop)
    handle = await start(shop, checkout_input(fast_path=False))
    result = await handle.result()
    assert (result.status, result.payment_status) == (OrderStatus.CONFIRMED, PaymentStatus.CAPTURED)
    assert len((await handle.fetch_history()).events) < 100, "eleven rounds would not fit into one history"


async def test_the_card_that_was_being_tried_is_tried_on(start: Any) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    handle = await start(shop, checkout_input(payment_method_id="pm_bad", fast_path=False))
    await handle.execute_update(CheckoutWorkflow.placed)
    _broken_for("authorize", 10, shop)
    card = UsePaymentMethod(payment_method_id="pm_card_visa")
    await handle.start_update(CheckoutWorkflow.use_payment_method, card, id="card-1", wait_for_stage=ACCEPTED)
    result = await handle.result()
    assert result.status is OrderStatus.CONFIRMED
    assert (shop.asked[-1].request_key, shop.asked[-1].payment_method_id) == ("card-1", "pm_card_visa")


@pytest.mark.parametrize("step", ["void", "release", "close"])
async def test_an_undo_of_weeks_ends_as_it_was_meant_to(start: Any, step: str) -> None:
    shop = FakeShop()
    shop.declined_cards = {"pm_bad"}
    _broken_for(step, 10, shop)
    handle = await start(shop, checkout_input(payment_method_id="pm_bad", fast_path=False))
    await handle.execute_update(CheckoutWorkflow.placed)
    await handle.start_update(CheckoutWorkflow.cancel, SUE, wait_for_stage=ACCEPTED)
    result = await handle.result()
    assert result.status is OrderStatus.CANCELLED
    assert shop.closed is not None
    assert (shop.closed.actor, shop.closed.reason) == (SUE.actor, SUE.reason)
    assert not shop.held


async def test_a_refund_of_weeks_ends_in_a_cancel(start: Any) -> None:
    shop = FakeShop()
    shop.present = OrderStatus.CONFIRMED
    _broken_for("refund", 10, shop)
    handle = await start(shop, fulfilment_input(fast_path=False))
    await handle.start_update(FulfilmentWorkflow.cancel, SUE, wait_for_stage=ACCEPTED)
    result = await handle.result()
    assert result.status is OrderStatus.CANCELLED
