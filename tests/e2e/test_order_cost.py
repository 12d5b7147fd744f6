"""What an order costs, in counters that do not depend on the machine: nobody makes it dearer unseen.

A number that has become smaller belongs here, and into docs/performance.md, too.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import asyncpg
import httpx
import pytest
from temporalio.api.enums.v1 import EventType

from cli.databases import PROCESSOR
from core import temporal
from models.types import Service
from tests.e2e.shopper import Shopper
from tests.stack import NEVER, Platform, Stack, start_platform, start_processor
from workflows.options import checkout_workflow_id

ORDERS = 4
LINES = 2

# Each is a round trip: an ordinary order of two lines takes no transaction of several statements anywhere.
STATEMENTS = {
    "carts": 2,  # claim, consume
    "catalog": 3,  # prices, reserve, commit
    "orders": 8,  # place; look, write the lines; reserved, authorized, confirmed, captured; answer
    "payments": 5,  # open, begin, hold; look, take
    "notifications": 1,
    "processor": 8,  # create 2, confirm 3, capture 3
}
EVENTS = 15  # of the workflow's history
LOCAL_STEPS = 7
WORKER_MODULES = 1_650  # imported before the first task; 1,606 on CPython 3.11


@pytest.fixture(scope="module")
def quiet() -> Iterator[Platform]:
    """A platform of its own, so that nobody else's statements are counted, and without its own chores.

    The processor tells it of nothing: an ordinary order takes one webhook, which is one statement of payments more, and
    of the processor's two for all that it delivers at once; but nobody can say in which order's time they fall.
    """
    stack = Stack()
    try:
        database = stack.make_database("quiet")
        quiet = {"MERCATO_RECONCILE_EVERY_SECONDS": NEVER, "MERCATO_FAST_STEP_SECONDS": "10"}
        platform = start_platform(stack, database, start_processor(stack, database), quiet)
        with httpx.Client(base_url=platform.processor_url, headers={"Authorization": "Bearer sk_test_mercato"}) as http:
            for endpoint in http.get("/v1/webhook_endpoints").json()["data"]:
                http.delete(f"/v1/webhook_endpoints/{endpoint['id']}").raise_for_status()
        yield platform
    finally:
        stack.close()


async def statements(owner: asyncpg.Connection) -> Counter[str]:
    """How often each role has gone to its own tables, or begun or ended a transaction.

    Left out: what a driver asks about types when it connects, and the ledger's own check at its commit.
    """
    rows = await owner.fetch(
        """
        SELECT substr(rolname, 9) AS service, sum(calls)::int AS calls
        FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND rolname LIKE 'mercato_%'
          AND (query ILIKE '%' || substr(rolname, 9) || '.%' OR query IN ('BEGIN', 'COMMIT', 'ROLLBACK', 'BEGIN;'))
          AND query NOT LIKE '%= checked%'
        GROUP BY rolname
        """
    )
    return Counter({row["service"]: row["calls"] for row in rows})


async def test_an_order_takes_no_more_statements_than_it_needs(quiet: Platform) -> None:
    owner = await asyncpg.connect(quiet.owner_url)
    await owner.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    async with httpx.AsyncClient(base_url=quiet.base_url, timeout=30) as http:
        shopper = await Shopper.registered(http)
        products = [item["id"] for item in (await http.get("/api/products")).json()["items"][:LINES]]

        async def order() -> str:
            for product in products:
                await shopper.add(product)
            before = await statements(owner)
            placed = await shopper.place()
            assert placed.status_code == 201, placed.text
            assert placed.json()["paymentStatus"] == "captured"
            spent.update(await statements(owner) - before)
            order_id: str = placed.json()["id"]
            return order_id

        spent: Counter[str] = Counter()
        await order()  # the first opens connections
        spent.clear()
        placed = [await order() for _ in range(ORDERS)]
    await owner.close()
    known = {*(service.value for service in Service), PROCESSOR} - {Service.USERS.value}
    assert {name: calls / ORDERS for name, calls in spent.items() if name in known} == STATEMENTS

    client = await temporal.connect(quiet.settings)
    history = await client.get_workflow_handle(checkout_workflow_id(placed[-1])).fetch_history()
    assert len(history.events) == EVENTS
    markers = [event for event in history.events if event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED]
    assert len(markers) == LOCAL_STEPS


def test_a_worker_imports_no_more_than_it_needs() -> None:
    imports = "import sys, cli.worker, core.logging, core.telemetry, workers.main"
    printed = "print(len(sys.modules), *sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", f"{imports}; {printed}"], capture_output=True, text=True, check=True)
    count, *packages = ran.stdout.split()
    assert {"fastapi", "fastapi_users", "alembic", "processor", "api", "pytest"}.isdisjoint(packages)
    assert int(count) <= WORKER_MODULES
