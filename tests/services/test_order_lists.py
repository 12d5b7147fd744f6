"""What staff search for is read from an index, whatever is asked: a table that is read through ends a large shop."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from core.db import Sessions, make_engine, make_sessions
from models.types import OrderStatus, PaymentStatus
from services import order_lists
from services.order_lists import OrderFilter

ORDERS = 20_000
CUSTOMER = UUID("00000000-0000-7000-8000-000000000007")
# Nine of ten are sold and paid, one in a hundred is open, one in a thousand stands still; an order a minute.
FILL = """
    INSERT INTO orders.orders (id, number, customer_id, status, payment_status, needs_attention, currency, checkout,
                               created_at, updated_at)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008' || lpad(n::text, 15, '0'))::uuid,
           translate(substr(md5(n::text), 1, 5) || '-' || lpad(n::text, 5, '0'), 'abcdef', 'ABCDEF'),
           ('00000000-0000-7000-8000-' || lpad((n % 2000)::text, 12, '0'))::uuid,
           CASE WHEN n % 100 = 1 THEN 'pending' WHEN n % 10 = 0 THEN 'cancelled' ELSE 'confirmed' END,
           CASE WHEN n % 100 = 1 THEN 'unknown' WHEN n % 10 = 0 THEN 'voided' ELSE 'captured' END,
           n % 1000 = 0, 'EUR', '{}', at, at
      FROM (SELECT n, timestamptz '2026-01-01' + n * interval '1 minute' AS at FROM generate_series(1, :orders) n) rows
"""
A_DAY = datetime(2026, 1, 5, tzinfo=UTC)


class Searches:
    """Runs a search and tells how PostgreSQL goes about the very same statement."""

    def __init__(self, sessions: Sessions, statements: list[tuple[str, Any]]) -> None:
        self._sessions = sessions
        self._statements = statements

    async def generic_plans(self, wanted: OrderFilter, times: int) -> int:
        """How many of these searches, by one connection, were planned without a look at their values."""
        async with self._sessions.begin() as session:
            for _ in range(times):
                await order_lists.search(session, wanted, None, 51)
            rows = await (await session.connection()).exec_driver_sql(
                "SELECT sum(generic_plans), sum(custom_plans) FROM pg_prepared_statements WHERE statement LIKE $1",
                ("%FROM orders.orders%LIMIT%",),
            )
            generic, custom = rows.one()
            assert custom >= times
            return int(generic)

    async def plan(self, wanted: OrderFilter, before: UUID | None = None) -> str:
        async with self._sessions.begin() as session:
            await order_lists.search(session, wanted, before, 51)
            statement, values = self._statements[-1]
            connection = await session.connection()
            rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", tuple(values))
            return "\n".join(rows.scalars())


@pytest.fixture(scope="module")
async def searches(make_database: Callable[[str], str]) -> AsyncIterator[Searches]:
    engine = make_engine(make_database("order_lists"))
    async with engine.begin() as connection:
        await connection.execute(text(FILL), {"orders": ORDERS})
        await connection.execute(text("ANALYZE orders.orders"))
    statements: list[tuple[str, Any]] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def remember(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        statements.append((statement, values))

    yield Searches(make_sessions(engine), statements)
    await engine.dispose()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (OrderFilter(), "orders_pkey"),
        (OrderFilter(statuses=[OrderStatus.CONFIRMED]), "orders_pkey"),
        (OrderFilter(needs_attention=False), "orders_pkey"),
        (OrderFilter(placed_after=A_DAY, placed_before=A_DAY + timedelta(days=1)), "orders_pkey"),
        (OrderFilter(number="C4CA4-00001"), "orders_number_key"),
        (OrderFilter(number="C4CA"), "orders_number_key"),
        (OrderFilter(customer_id=CUSTOMER), "orders_by_customer"),
        (OrderFilter(customer_id=CUSTOMER, statuses=[OrderStatus.CONFIRMED]), "orders_by_customer"),
        (OrderFilter(needs_attention=True), "orders_needing_attention"),
        (OrderFilter(statuses=[OrderStatus.EXPIRED]), "orders_by_state"),
        (OrderFilter(statuses=[OrderStatus.PENDING, OrderStatus.ACTION_REQUIRED]), "orders_by_state|orders_unfinished"),
        (OrderFilter(payment_statuses=[PaymentStatus.UNKNOWN, PaymentStatus.DECLINED]), "orders_by_state"),
        (
            OrderFilter(statuses=[OrderStatus.CONFIRMED], payment_statuses=[PaymentStatus.AUTHORIZED]),
            "orders_by_state|orders_unfinished",
        ),
        (OrderFilter(statuses=[OrderStatus.EXPIRED], placed_before=A_DAY), "orders_by_state"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_search_reads_the_index_made_for_it(searches: Searches, wanted: OrderFilter, index: str) -> None:
    for before in (None, UUID(int=(1 << 127) - 1)):
        plan = await searches.plan(wanted, before)
        assert re.search(rf"(using|on) ({index}) ", plan), plan
        assert "Seq Scan" not in plan
        if index == "orders_by_state":  # comes out sorted, and the states are looked up in it
            assert "Sort" not in plan
            assert re.search(r"Index Cond: .*status = ", plan), plan


async def test_a_search_made_often_is_still_planned_by_its_values(searches: Searches) -> None:
    """PostgreSQL's plan for any customer is bad for one who has a tenth of all orders."""
    assert await searches.generic_plans(OrderFilter(customer_id=CUSTOMER), times=12) == 0
