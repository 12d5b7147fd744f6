"""What a caller is told when nobody answers in time: never that something is on its way which may have been lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from api import checkouts
from core.settings import Settings
from core.temporal import TemporalConnector, ensure_search_attributes
from models.errors import Unavailable
from models.messages import CheckoutInput, StaffAction, UsePaymentMethod
from models.types import uuid7
from workflows import options

SUE = StaffAction(actor="sue", reason="the customer rang")


@pytest.fixture(autouse=True)
def nobody_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of our own: the platform of other tests may have workers on the same server."""
    monkeypatch.setattr(options, "TASK_QUEUE", f"nobody-{uuid7()}")


class Wire:
    """A connection to Temporal that can be cut without anybody noticing."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.partition(":")
        self.cut = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            server.close()
            server.close_clients() if hasattr(server, "close_clients") else None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, int(self._port))
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.cut:
                writer.write(data)
                await writer.drain()
        writer.close()


def _checkout() -> CheckoutInput:
    return CheckoutInput(order_id=uuid7(), customer_id=uuid7(), payment_method_id="pm_card_visa")


def _through(address: str) -> checkouts.Checkouts:
    temporal = TemporalConnector(Settings(environment="test", temporal_address=address))
    return checkouts.Checkouts(temporal, task_timeout=timedelta(seconds=10))


async def _signals(client: Client, order_id: UUID) -> int:
    handle = client.get_workflow_handle(f"checkout-{order_id}")
    events = [event.event_type async for event in handle.fetch_history_events()]
    await handle.terminate("the test is over")
    return events.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)


@pytest.mark.parametrize("started", [True, False], ids=["started", "never-started"])
async def test_a_cancel_that_no_worker_takes_in_time_is_kept(temporal_address: str, started: bool) -> None:
    through, checkout = _through(temporal_address), _checkout()
    client = await through.temporal.client()
    await ensure_search_attributes(client)
    if started:
        await checkouts.start(through, checkout, 0)
    await checkouts.cancel(through, checkout, SUE, 0.2, word=True)
    assert await _signals(client, checkout.order_id) == 1


async def test_a_cancel_that_cannot_reach_temporal_is_not_promised(temporal_address: str) -> None:
    wire = Wire(temporal_address)
    async with wire.open() as address:
        through = _through(address)
        await through.temporal.client()
        wire.cut = True
        with pytest.raises(Unavailable):
            await checkouts.cancel(through, _checkout(), SUE, 0.2, word=True)


async def test_a_card_that_nobody_has_tried_yet_is_not_called_answered(temporal_address: str) -> None:
    through, checkout = _through(temporal_address), _checkout()
    client = await through.temporal.client()
    await ensure_search_attributes(client)
    await checkouts.start(through, checkout, 0)
    card = UsePaymentMethod(payment_method_id="pm_card_visa")
    assert not await checkouts.send_card(through, checkout.order_id, "key", card, 0.2)
    await client.get_workflow_handle(f"checkout-{checkout.order_id}").terminate("the test is over")
