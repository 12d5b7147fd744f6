"""`mercato check`: whole orders break nothing, and whatever is broken is found."""

import json
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from temporalio.client import Client

from cli import check as checking
from cli.check import check_invariants
from core.settings import Settings
from tests.cli.books import Books
from tests.cli.command import mercato


@pytest.fixture
async def books(
    make_database: Callable[[str], str],
    processor_url: str,
    temporal_address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Books]:
    """A shop with one order of each kind; the open one has just been placed."""
    monkeypatch.setattr(checking, "BETWEEN_LOOKS", 0.05)
    settings = Settings(
        database_url=make_database(f"check_{uuid4().hex}"),
        processor_url=processor_url,
        temporal_address=temporal_address,
        processor_api_key=f"sk_test_{uuid4().hex}",
    )
    headers = {"Authorization": f"Bearer {settings.processor_api_key.get_secret_value()}"}
    database = await asyncpg.connect(settings.database_url)
    async with httpx.AsyncClient(base_url=processor_url, headers=headers) as http:
        books = Books(settings, database, http)
        await books.open_shop()
        yield books
    await database.close()


async def broken(books: Books) -> dict[str, set[str]]:
    """Invariant -> the subjects that break it."""
    report = await check_invariants(books.settings)
    assert not report.unreadable
    found: dict[str, set[str]] = {}
    for breach in report.breaches:
        found.setdefault(breach.invariant, set()).add(breach.subject)
    return found


def environment(settings: Settings) -> dict[str, str]:
    return {
        "MERCATO_DATABASE_URL": settings.database_url,
        "MERCATO_PROCESSOR_URL": settings.processor_url,
        "MERCATO_PROCESSOR_API_KEY": settings.processor_api_key.get_secret_value(),
        "MERCATO_TEMPORAL_ADDRESS": settings.temporal_address,
    }


async def fresh(books: Books, order_id: UUID) -> None:
    await books.database.execute("UPDATE orders.orders SET updated_at = now() WHERE id = $1", order_id)


async def test_whole_orders_break_nothing_and_the_command_says_so(books: Books) -> None:
    await books.order("sold")
    await books.order("cancelled")
    await fresh(books, await books.order("open"))
    done = await mercato("check", env=environment(books.settings))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything holds." in done.stdout
    assert "3 orders" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


async def test_a_breach_is_named_with_its_order_and_ends_with_1(books: Books) -> None:
    order_id = await books.order("sold")
    await books.intent(order_id)
    done = await mercato("check", "--json", env=environment(books.settings))
    report = json.loads(done.stdout)
    money = next(one for one in report["invariants"] if one["name"] == "I3")
    assert done.returncode == 1
    assert report["holds"] is False
    assert {breach["subject"] for breach in money["breaches"]} == {str(order_id)}
    assert any("2 live charges" in breach["detail"] for breach in money["breaches"])


@pytest.mark.parametrize(
    ("setting", "source"),
    [("MERCATO_PROCESSOR_URL", "processor"), ("MERCATO_TEMPORAL_ADDRESS", "Temporal")],
)
async def test_what_cannot_be_read_ends_with_2_and_the_rest_is_checked(books: Books, setting: str, source: str) -> None:
    nobody = {"MERCATO_PROCESSOR_URL": "http://127.0.0.1:9", "MERCATO_TEMPORAL_ADDRESS": "127.0.0.1:9"}[setting]
    done = await mercato("check", env=environment(books.settings) | {setting: nobody})
    assert done.returncode == 2, done.stdout + done.stderr
    assert source in done.stdout
    assert "1 products" in done.stdout


async def test_without_a_database_it_says_so(books: Books) -> None:
    done = await mercato("check", env={"MERCATO_DATABASE_URL": "postgresql://mercato:x@127.0.0.1:9/nowhere"})
    assert done.returncode == 2
    assert "The database cannot be reached" in done.stdout


SOLD = [
    ("I1", "ALTER TABLE catalog.stock DROP CONSTRAINT stock_never_oversold; UPDATE catalog.stock SET reserved = -1"),
    ("I1", "UPDATE catalog.stock SET on_hand = on_hand + 1"),
    ("I1", "UPDATE catalog.reservation_lines SET quantity = 2"),
    ("I2", "UPDATE catalog.stock SET reserved = 1"),
    ("I3", "UPDATE orders.orders SET currency = 'USD'"),
    ("I5", "UPDATE payments.payments SET status = 'authorized'"),
    ("I6", "DELETE FROM orders.customer_event WHERE seq = 2"),
    ("I6", "UPDATE orders.customer_counters SET last_seq = 9"),
    ("I6", "DELETE FROM orders.customer_counters"),
    ("I6", "DELETE FROM orders.customer_event; DELETE FROM orders.customer_counters"),
    ("I7", "UPDATE carts.claims SET state = 'active', ended_at = NULL"),
    ("I7", "UPDATE carts.claims SET state = 'released'"),
    ("I7", "DELETE FROM carts.claims"),
    ("I8", "UPDATE catalog.reservations SET state = 'released'"),
    ("I8", "UPDATE catalog.reservations SET state = 'active', ended_at = NULL"),
    ("I8", "DELETE FROM catalog.reservation_lines; DELETE FROM catalog.reservations"),
    ("I8", "UPDATE orders.order_lines SET quantity = 2, line_amount = 2 * unit_amount"),
    ("I9", "DELETE FROM notifications.messages"),
    (
        "I9",
        "ALTER TABLE notifications.messages DROP CONSTRAINT messages_order_id_kind_channel_key;"
        "INSERT INTO notifications.messages SELECT uuidv7(), order_id, customer_id, kind, channel, data"
        " FROM notifications.messages",
    ),
]


@pytest.mark.parametrize(("invariant", "damage"), SOLD)
async def test_a_sold_order_that_is_damaged_is_found(books: Books, invariant: str, damage: str) -> None:
    order_id = await books.order("sold")
    assert not await broken(books)
    await books.database.execute("ALTER TABLE payments.payments DISABLE TRIGGER USER")
    await books.database.execute(damage)
    assert (await broken(books))[invariant] & {str(order_id), "product 1", f"customer {books.customer}"}


CANCELLED = [
    ("I5", "UPDATE orders.orders SET payment_status = 'unknown'"),
    ("I5", "UPDATE orders.orders SET payment_status = 'authorized'"),
    ("I7", "UPDATE carts.claims SET state = 'active', ended_at = NULL"),
    ("I7", "UPDATE carts.claims SET state = 'consumed'"),
    ("I8", "UPDATE catalog.reservations SET state = 'active', ended_at = NULL"),
    ("I8", "UPDATE catalog.reservations SET state = 'committed'"),
]


@pytest.mark.parametrize(("invariant", "damage"), CANCELLED)
async def test_an_ended_order_that_keeps_something_is_found(books: Books, invariant: str, damage: str) -> None:
    order_id = await books.order("cancelled")
    assert not await broken(books)
    await books.database.execute(damage)
    assert str(order_id) in (await broken(books))[invariant]


async def test_money_held_for_an_ended_order_is_found(books: Books) -> None:
    order_id = await books.order("cancelled")
    await books.intent(order_id)
    assert (await broken(books)) == {"I3": {str(order_id)}, "I5": {str(order_id)}}


async def test_money_of_an_order_that_does_not_exist_is_found(books: Books) -> None:
    stranger, nobody = uuid4(), await books.intent(None)
    await books.intent(stranger, capture=True)
    assert (await broken(books))["I3"] == {str(stranger), nobody}


async def test_a_ledger_that_says_other_than_the_processor_is_found(books: Books) -> None:
    order_id = await books.order("sold")
    await books.post(order_id, "refund", {"processor:receivable": -1500, "sales": 1500})
    assert (await broken(books)) == {"I5": {str(order_id)}}


async def test_a_ledger_transaction_that_does_not_sum_to_zero_is_found(books: Books) -> None:
    order_id = await books.order("sold")
    await books.database.execute("ALTER TABLE payments.ledger_entries DISABLE TRIGGER entries_sum_to_zero")
    await books.database.execute("UPDATE payments.ledger_entries SET amount_minor = 1 WHERE account = 'sales'")
    assert (await broken(books)) == {"I5": {str(order_id)}}


async def test_a_change_of_status_after_the_end_is_found(books: Books) -> None:
    order_id = await books.order("cancelled")
    await books.event(order_id, "order.confirmed", "confirmed")
    assert (await broken(books)) == {"I6": {str(order_id)}}


async def test_an_order_that_nobody_looks_after_is_found_until_a_workflow_does(books: Books) -> None:
    order_id = await books.order("open")
    assert (await broken(books)) == {"I4": {str(order_id)}, "I8": {str(order_id)}}
    client = await Client.connect(books.settings.temporal_address)
    handle = await client.start_workflow("CheckoutWorkflow", id=f"checkout-{order_id}", task_queue=uuid4().hex)
    assert not await broken(books)
    await handle.terminate()


async def test_an_order_that_needs_attention_may_wait_but_not_hold_stock_for_nobody(books: Books) -> None:
    order_id = await books.order("open")
    await books.database.execute("UPDATE orders.orders SET needs_attention = true")
    assert (await broken(books)) == {"I8": {str(order_id)}}


async def test_a_workflow_that_is_open_for_too_long_is_found(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = await books.order("open")
    client = await Client.connect(books.settings.temporal_address)
    handle = await client.start_workflow("CheckoutWorkflow", id=f"checkout-{order_id}", task_queue=uuid4().hex)
    assert not await broken(books)
    monkeypatch.setattr(checking, "open_seconds", lambda settings: -60.0)
    assert (await broken(books)) == {"I10": {str(order_id)}}
    await books.database.execute("UPDATE orders.orders SET needs_attention = true")
    assert not await broken(books)
    await handle.terminate()
