"""The processor's books compared, on a real processor: what is said to be given back has been, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import time_machine
from pydantic import SecretStr
from sqlalchemy import text
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import ActivityEnvironment

from activities.books import BooksActivities
from activities.breaks import BreakBook
from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.messages import BooksResult, ReconcileInput
from models.types import Money, OrderStatus, Service
from services import orders, payments
from services import payment_records as records
from services.processor import GivenBack, Intent, Processor
from tests.activities.desk import Desk

AMOUNT = Money(amount=700)


@dataclass
class Counter:
    """Orders with money at the processor, in an account of its own, and a pass over them."""

    desk: Desk
    payments: Sessions
    processor: Processor
    http: httpx.AsyncClient
    books: BooksActivities

    async def held(self) -> UUID:
        """An open order whose money is held."""
        checkout = await self.desk.placed()
        order_id = checkout.order_id
        await payments.authorize(
            self.payments,
            self.processor,
            order_id=order_id,
            attempt=1,
            amount=AMOUNT,
            payment_method_id="pm_card_visa",
        )
        return order_id

    async def intent_of(self, order_id: UUID) -> str:
        async with self.payments() as session:
            payment = await payments.get_payment(session, order_id)
        assert payment is not None
        assert payment.intent_id is not None
        return payment.intent_id

    async def taken_behind_our_back(self, order_id: UUID) -> None:
        await self.processor.capture(await self.intent_of(order_id), f"{order_id}:by-hand")

    async def end(self, order_id: UUID, status: OrderStatus = OrderStatus.EXPIRED) -> None:
        async with self.desk.sessions[Service.ORDERS]() as session:
            await orders.end(session, order_id, status)

    async def compare(self, **wanted: Any) -> BooksResult:
        values = {"everything": True, "give_back_after_seconds": 0, "older_than_seconds": 0, **wanted}
        result: Any = await ActivityEnvironment().run(self.books.compare_books, ReconcileInput(**values))
        assert isinstance(result, BooksResult)
        return result

    async def money(self, order_id: UUID) -> list[tuple[int, int, int]]:
        """(held, captured, refunded) of each intent."""
        found = await self.http.get("/test/books", params={"order_id": str(order_id)})
        return [(one["amount_authorized_open"], one["captured"], one["refunded"]) for one in found.json()["data"]]

    async def breaks(self, order_id: UUID) -> list[tuple[str, str]]:
        query = text("SELECT kind, state FROM orders.breaks WHERE order_id = :id ORDER BY id")
        async with self.desk.sessions[Service.ORDERS]() as session:
            rows = await (await session.connection()).execute(query, {"id": order_id})
            return [(row.kind, row.state) for row in rows]


@pytest.fixture
async def counter(
    desk: Desk, make_database: Callable[[str], str], processor_url: str, temporal_address: str
) -> AsyncIterator[Counter]:
    key = f"sk_test_{uuid4().hex}"
    address = make_engine(desk.payments_url)
    sessions = make_sessions(address)
    processor = Processor(Settings(processor_url=processor_url, processor_api_key=SecretStr(key)))
    client = await Client.connect(temporal_address, data_converter=pydantic_data_converter)
    books = BooksActivities(
        orders=desk.sessions[Service.ORDERS],
        payments=sessions,
        processor=processor,
        book=BreakBook(desk.recorder),
        client=client,
    )
    async with desk.sessions[Service.ORDERS].begin() as session:
        await (await session.connection()).execute(
            text("UPDATE orders.breaks SET state = 'repaired', closed_at = now() WHERE state = 'open'")
        )
        await (await session.connection()).execute(text("DELETE FROM orders.reconciled_until"))
    async with httpx.AsyncClient(base_url=processor_url, headers={"Authorization": f"Bearer {key}"}) as http:
        yield Counter(desk, sessions, processor, http, books)
    await processor.aclose()
    await address.dispose()


async def test_money_taken_for_a_payment_that_we_count_as_voided_is_given_back(counter: Counter) -> None:
    order_id = await counter.held()
    await counter.taken_behind_our_back(order_id)
    await records.note_voided(counter.payments, order_id, None)
    await counter.end(order_id)
    assert (await counter.compare()).given_back == 1
    assert await counter.money(order_id) == [(0, 700, 700)]
    assert await counter.breaks(order_id) == [("money_without_order", "repaired")]
    again = await counter.compare()
    assert (again.given_back, again.breaks) == (0, 0)
    assert await counter.breaks(order_id) == [("money_without_order", "repaired")]


async def test_money_taken_for_a_payment_that_we_count_as_held_is_given_back_by_way_of_our_books(
    counter: Counter,
) -> None:
    order_id = await counter.held()
    await counter.taken_behind_our_back(order_id)
    await counter.end(order_id)
    assert (await counter.compare()).given_back == 1
    assert await counter.money(order_id) == [(0, 700, 700)]
    async with counter.payments() as session:
        kinds = [posted.kind for posted in await payments.ledger_of(session, order_id)]
    assert kinds == ["authorize", "capture", "refund"]
    assert (await counter.compare()).breaks == 0


async def test_money_held_for_an_order_that_has_ended_is_let_go(counter: Counter) -> None:
    order_id = await counter.held()
    await counter.end(order_id)
    assert (await counter.compare(give_back_after_seconds=600)).given_back == 0
    assert await counter.money(order_id) == [(700, 0, 0)]
    assert (await counter.compare()).given_back == 1
    assert await counter.money(order_id) == [(0, 0, 0)]


async def test_a_refund_that_the_processor_refuses_leaves_the_break_open(counter: Counter) -> None:
    order_id = await counter.held()
    await counter.taken_behind_our_back(order_id)
    await records.note_voided(counter.payments, order_id, None)
    await counter.end(order_id)
    fault = {"mode": "error_500", "operations": ["refund"], "order_id": str(order_id)}
    (await counter.http.put("/test/faults", json=fault)).raise_for_status()
    try:
        assert (await counter.compare()).given_back == 0
    finally:
        await counter.http.delete("/test/faults", params={"order_id": str(order_id)})
    assert await counter.breaks(order_id) == [("money_without_order", "open")]


async def test_a_void_under_way_is_no_hold_that_has_lapsed(counter: Counter) -> None:
    """A cancel, between the processor's answer and our note of it."""
    order_id = await counter.held()
    await records.request_void(counter.payments, order_id)
    await counter.processor.cancel(await counter.intent_of(order_id), f"{order_id}:void")
    await counter.compare()
    assert await counter.breaks(order_id) == []


async def test_what_ended_well_while_a_page_was_looked_at_is_no_break(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is older than what we read beside it: a healthy order is cancelled in between."""
    order_id = await counter.held()
    listed = counter.processor.intents_since

    async def slow(*asked: Any) -> AsyncIterator[list[Intent]]:
        async for page in listed(*asked):
            await payments.void(counter.payments, counter.processor, order_id=order_id)
            await counter.end(order_id, OrderStatus.CANCELLED)
            yield page

    monkeypatch.setattr(counter.processor, "intents_since", slow)
    await counter.compare(give_back_after_seconds=600)
    assert await counter.breaks(order_id) == []


async def test_money_that_comes_long_after_its_intent_is_found_without_a_sweep(counter: Counter) -> None:
    """A card whose bank is asked for minutes: nothing was wrong when the intent was young."""
    order_id = await counter.held()
    await asyncio.sleep(1.1)  # intents are dated to the second
    await counter.compare(everything=False)
    async with counter.desk.sessions[Service.ORDERS]() as session:
        # as if the passes went on for so long that the first look is over
        await (await session.connection()).execute(
            text("UPDATE orders.reconciled_until SET at = now() + interval '5 minutes' WHERE what = 'intents'")
        )
    await counter.end(order_id)
    await counter.compare(everything=False, overdue_seconds=1)
    assert await counter.money(order_id) == [(0, 0, 0)]


@pytest.mark.parametrize("minutes", [10, -10])
async def test_a_worker_whose_clock_is_wrong_hides_nothing_from_the_next_pass(
    counter: Counter, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R41: it must not say that it has looked at what is still to come."""
    monkeypatch.setattr("activities.books.SETTLING", timedelta(0))
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes), tick=True):
        await counter.compare(everything=False)
    order_id = await counter.held()
    await counter.end(order_id)
    await asyncio.sleep(1.1)  # intents are dated to the second
    await counter.compare(everything=False)
    assert await counter.money(order_id) == [(0, 0, 0)]


async def test_a_processor_whose_clock_is_behind_hides_nothing_from_the_next_pass(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R41: a pass has come as far as the processor's clock, whatever ours says."""
    await counter.held()
    await asyncio.sleep(1.1)
    true_pages, behind = counter.processor.intents_since, 600

    async def late_pages(created: int) -> Any:
        async for page in true_pages(created + behind):
            yield [replace(intent, created=intent.created - behind) for intent in page]

    monkeypatch.setattr(counter.processor, "intents_since", late_pages)
    await counter.compare(everything=False)
    order_id = await counter.held()
    await counter.end(order_id)
    await asyncio.sleep(1.1)
    await counter.compare(everything=False)
    assert await counter.money(order_id) == [(0, 0, 0)]


async def test_a_refund_that_fails_leaves_the_break_open(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = await counter.held()
    await counter.taken_behind_our_back(order_id)
    await records.note_voided(counter.payments, order_id, None)
    await counter.end(order_id)

    async def failed(*_: Any) -> GivenBack:
        return GivenBack("re_1", "failed", AMOUNT.amount)

    monkeypatch.setattr(counter.processor, "refund", failed)
    assert (await counter.compare()).given_back == 0
    assert await counter.breaks(order_id) == [("money_without_order", "open")]
