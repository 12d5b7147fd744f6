"""The way from HTTP into Temporal, on a server where nobody works."""

import asyncio
import time
from datetime import timedelta

import pytest

from api import checkouts
from core.settings import Settings
from core.temporal import TemporalConnector, ensure_search_attributes
from models.messages import CheckoutInput, StaffAction
from models.types import uuid7

WAITS = [0.5 + step / 10 for step in range(26)]  # the client doubles some of them, by the luck of the server's timers


@pytest.mark.parametrize("call", ["start", "cancel"])
async def test_without_workers_the_wait_is_as_long_as_asked_for_and_no_longer(temporal_address: str, call: str) -> None:
    temporal = TemporalConnector(Settings(environment="test", temporal_address=temporal_address))
    client = await temporal.client()
    await ensure_search_attributes(client)
    through = checkouts.Checkouts(temporal, task_timeout=timedelta(seconds=10))

    async def take(wait: float) -> float:
        checkout = CheckoutInput(order_id=uuid7(), customer_id=uuid7(), payment_method_id="pm_card_visa")
        began = time.monotonic()
        if call == "start":
            await checkouts.start(through, checkout, wait)
        else:
            await checkouts.cancel(through, checkout, StaffAction(actor="test", reason="nobody works"), wait, word=True)
        taken = time.monotonic() - began
        await client.get_workflow_handle(f"checkout-{checkout.order_id}").terminate("the test is over")
        return taken

    taken = await asyncio.gather(*map(take, WAITS))
    assert all(seconds < wait + 1 for seconds, wait in zip(taken, WAITS, strict=True)), taken
    await temporal.close()
