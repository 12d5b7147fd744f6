"""Every way a checkout can end, played with a fake shop; `python -m tests.replay.endings DIR` records the histories.

Record once a release, before the code of that release changes: the files are what runs of that release left behind.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from core.temporal import ensure_search_attributes
from models.messages import Refusal, StaffAction, UsePaymentMethod
from models.types import OrderStatus
from tests.workflows.shop import FakeShop, checkout_input
from workflows.checkout import CheckoutWorkflow

SUE = StaffAction(actor="sue", reason="the customer rang")
Play = Callable[[Any], Awaitable[object]]


async def _watch(_: Any) -> None:
    return None


async def _another_card(handle: Any) -> None:
    await handle.execute_update(CheckoutWorkflow.placed, id="placed")
    await handle.execute_update(
        CheckoutWorkflow.use_payment_method, UsePaymentMethod(payment_method_id="pm_card_visa"), id="card-1"
    )


async def _cancel(handle: Any) -> None:
    await handle.execute_update(CheckoutWorkflow.placed, id="placed")
    await handle.execute_update(CheckoutWorkflow.cancel, SUE, id="cancel")


async def _retry(handle: Any) -> None:
    while "stands still" not in (await handle.query(CheckoutWorkflow.status)).sentence:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await handle.execute_update(CheckoutWorkflow.retry, SUE, id="retry-1")


def _shop(**changes: Any) -> FakeShop:
    shop = FakeShop()
    for name, value in changes.items():
        setattr(shop, name, value)
    return shop


def _failing(step: str, times: int) -> FakeShop:
    shop = FakeShop()
    shop.fail[step] = times
    return shop


def endings() -> dict[str, tuple[FakeShop, dict[str, Any], Play]]:
    """Name -> (the shop, what differs in the input, what people do meanwhile)."""
    declined = {"payment_method_id": "pm_bad"}
    stands = {"round_pause_seconds": 100_000.0}
    return {
        "confirmed": (_shop(), {}, _watch),
        "confirmed-after-outage": (_failing("reserve", 4), {}, _watch),
        "confirmed-after-retry": (_failing("authorize", 9), stands, _retry),
        "confirmed-after-next-round": (_failing("capture", 9), {}, _watch),
        "confirmed-with-another-card": (_shop(declined_cards={"pm_bad"}), declined, _another_card),
        "rejected-cart-empty": (_shop(refusal=Refusal(code="cart_empty", detail="the cart is empty")), {}, _watch),
        "rejected-out-of-stock": (_shop(shortage=True), {}, _watch),
        "expired": (_shop(declined_cards={"pm_bad"}), declined, _watch),
        "expired-released-meanwhile": (_shop(released_meanwhile=True), {}, _watch),
        "cancelled-while-waiting": (_shop(declined_cards={"pm_bad"}), declined, _cancel),
        "cancelled-refused-for-good": (_shop(refuse={"authorize"}), {}, _watch),
        "undo-that-failed": (_undo_that_fails(), {**declined, "round_pause_seconds": 0.5}, _cancel),
        "rerun-of-ended": (_shop(present=OrderStatus.CANCELLED), {}, _watch),
        "rerun-of-confirmed": (_shop(present=OrderStatus.CONFIRMED), {}, _watch),
        "rerun-of-begun": (_shop(begun=True, held=True, needs_attention=True), {}, _watch),
        "repaired-undone": (_shop(held=True, money="held"), {"repair": True}, _watch),
        "repaired-forward": (_shop(committed=True), {"repair": True}, _watch),
        "repaired-sold-meanwhile": (_sold_while_looked_at(), {"repair": True}, _watch),
    }


def _undo_that_fails() -> FakeShop:
    shop = _failing("release", 9)
    shop.declined_cards = {"pm_bad"}
    return shop


def _sold_while_looked_at() -> FakeShop:
    shop = _shop(begun=True, held=True, money="held")

    async def sell() -> None:
        shop.committed = True

    shop.on_call["release"] = sell
    return shop


async def record(directory: Path) -> None:
    """Play every ending, on the fast path and on regular activities, and write its history as JSON."""
    server = str(Path(sys.executable).with_name("temporal-test-server"))
    environment = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=server, data_converter=pydantic_data_converter
    )
    async with environment:
        await ensure_search_attributes(environment.client)
        for fast in (True, False):
            for name, ending in endings().items():
                history = await _played(environment, ending, fast)
                path = directory / f"{name}-{'fast' if fast else 'regular'}.json"
                path.write_text(json.dumps(history, indent=1, sort_keys=True) + "\n")


async def _played(environment: WorkflowEnvironment, ending: tuple[FakeShop, dict[str, Any], Play], fast: bool) -> Any:
    shop, changes, play = ending
    queue = str(uuid4())
    checkout = checkout_input(fast_path=fast, **changes)
    client = environment.client
    async with Worker(client, task_queue=queue, workflows=[CheckoutWorkflow], activities=shop.activities()):
        handle = await client.start_workflow(
            CheckoutWorkflow.run, checkout, id=f"checkout-{checkout.order_id}", task_queue=queue
        )
        await play(handle)
        await handle.result()
    return _portable((await handle.fetch_history()).to_json_dict())


def _portable(value: Any) -> Any:
    """The history without what only tells of the machine it was recorded on."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, dict):
        dropped = {"stackTrace", "binaryChecksum"}
        kept = {key: _portable(item) for key, item in value.items() if key not in dropped}
        return {**kept, "identity": "recorder"} if "identity" in kept else kept
    return value


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(record(target))
    sys.stdout.flush()
    os._exit(0)
