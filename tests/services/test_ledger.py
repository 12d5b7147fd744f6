"""The ledger's books balance because the database sees to it."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.payments import LedgerKind
from models.types import Money, Service, uuid7
from services import ledger

AMOUNT = Money(amount=1250)


@pytest.fixture(scope="module")
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(Settings(database_url=database_url).service_database_url(Service.PAYMENTS))
    yield make_sessions(engine)
    await engine.dispose()


async def execute(session: AsyncSession, statement: str, **values: object) -> None:
    await (await session.connection()).execute(text(statement), values)


async def balances(sessions: Sessions, order_id: UUID) -> dict[str, int]:
    found: dict[str, int] = {}
    async with sessions() as session:
        for posted in await ledger.of_order(session, order_id):
            assert sum(entry.amount_minor for entry in posted.entries) == 0
            for entry in posted.entries:
                found[entry.account] = found.get(entry.account, 0) + entry.amount_minor
    return {account: amount for account, amount in found.items() if amount}


async def post(sessions: Sessions, order_id: UUID, kind: LedgerKind) -> bool:
    async with sessions.begin() as session:
        return await ledger.post(session, order_id, kind, AMOUNT)


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        ("authorize", {"customer:authorized": 1250, "processor:holds": -1250}),
        ("authorize void", {}),
        ("authorize capture", {"processor:receivable": 1250, "sales": -1250}),
        ("authorize capture refund", {}),
    ],
)
async def test_what_each_posting_leaves_in_the_accounts(sessions: Sessions, kinds: str, left: dict[str, int]) -> None:
    order_id = uuid7()
    for kind in kinds.split():
        assert await post(sessions, order_id, LedgerKind(kind))
    assert await balances(sessions, order_id) == left


async def test_a_repeat_books_nothing(sessions: Sessions) -> None:
    order_id = uuid7()
    assert await post(sessions, order_id, LedgerKind.AUTHORIZE)
    assert not await post(sessions, order_id, LedgerKind.AUTHORIZE)
    async with sessions() as session:
        assert [posted.key for posted in await ledger.of_order(session, order_id)] == [f"{order_id}:authorize"]


async def test_the_database_refuses_a_transaction_that_does_not_sum_to_zero(sessions: Sessions) -> None:
    order_id = uuid7()
    assert await post(sessions, order_id, LedgerKind.AUTHORIZE)
    with pytest.raises(IntegrityError, match="does not sum to zero"):
        async with sessions.begin() as session:
            await execute(
                session,
                "INSERT INTO payments.ledger_entries (txn_id, account, amount_minor, currency)"
                " SELECT id, 'sales', 1, 'EUR' FROM payments.ledger_transactions WHERE order_id = :order",
                order=order_id,
            )
    assert await balances(sessions, order_id) == {"customer:authorized": 1250, "processor:holds": -1250}


async def test_currencies_do_not_balance_each_other(sessions: Sessions) -> None:
    with pytest.raises(IntegrityError, match="does not sum to zero"):
        async with sessions.begin() as session:
            await execute(
                session,
                "WITH txn AS (INSERT INTO payments.ledger_transactions (order_id, kind, key)"
                " VALUES (:order, 'capture', :key) RETURNING id)"
                " INSERT INTO payments.ledger_entries (txn_id, account, amount_minor, currency)"
                " SELECT id, 'sales', 5, 'EUR' FROM txn UNION ALL SELECT id, 'sales', -5, 'USD' FROM txn",
                order=uuid7(),
                key=uuid7().hex,
            )


async def test_the_database_refuses_a_transaction_without_entries(sessions: Sessions) -> None:
    with pytest.raises(IntegrityError, match="has no entries"):
        async with sessions.begin() as session:
            await execute(
                session,
                "INSERT INTO payments.ledger_transactions (order_id, kind, key) VALUES (:order, 'void', :key)",
                order=uuid7(),
                key=uuid7().hex,
            )


@pytest.mark.parametrize("table", ["ledger_transactions", "ledger_entries"])
@pytest.mark.parametrize("statement", ["DELETE FROM payments.{}", "UPDATE payments.{} SET {} = {}"])
async def test_the_service_can_only_append(sessions: Sessions, table: str, statement: str) -> None:
    column = "kind" if table == "ledger_transactions" else "account"
    with pytest.raises(DBAPIError, match="permission denied"):
        async with sessions.begin() as session:
            await execute(session, statement.format(table, column, column))


async def test_the_owner_cannot_unbalance_the_books_either(sessions: Sessions, database_url: str) -> None:
    order_id = uuid7()
    await post(sessions, order_id, LedgerKind.AUTHORIZE)
    engine = make_engine(database_url)
    try:
        with pytest.raises(DBAPIError, match="does not sum to zero"):
            async with make_sessions(engine).begin() as session:
                await execute(
                    session,
                    "UPDATE payments.ledger_entries SET amount_minor = amount_minor + 1"
                    " WHERE account = 'processor:holds' AND txn_id IN"
                    " (SELECT id FROM payments.ledger_transactions WHERE order_id = :order)",
                    order=order_id,
                )
    finally:
        await engine.dispose()


async def test_facts_of_a_payment_cannot_be_changed(sessions: Sessions) -> None:
    order_id = uuid7()
    async with sessions.begin() as session:
        await execute(
            session,
            "INSERT INTO payments.payments (order_id, intent_id, amount, currency, status)"
            " VALUES (:order, :intent, 100, 'EUR', 'captured')",
            order=order_id,
            intent=order_id.hex,
        )
    for change in ("amount = 101", "currency = 'USD'", "intent_id = NULL", "status = 'authorized'"):
        with pytest.raises(DBAPIError, match="this change is refused"):
            async with sessions.begin() as session:
                await execute(session, f"UPDATE payments.payments SET {change} WHERE order_id = :order", order=order_id)
