"""R42: what kills its worker each time, or cannot be read, stands still alone; everybody else is served."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from cli.check import check_invariants
from cli.process import ProgramFailed
from core.faults import Fault, FaultFile
from tests.chaos.conftest import SOON
from tests.e2e.shop import Shop
from tests.e2e.shopper import eventually
from tests.stack import Platform, Stack, start_platform, start_processor

OTHERS = 5


@pytest.fixture(scope="module")
def bench() -> Iterator[Platform]:
    stack = Stack()
    try:
        database = stack.make_database("poison")
        env = {**SOON, "MERCATO_QUARANTINE_SECONDS": "600", "MERCATO_RECONCILE_AFTER_SECONDS": "60"}
        yield start_platform(stack, database, start_processor(stack, database), env)
    finally:
        stack.close()


@pytest.fixture
async def shop(bench: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(bench) as shop:
        yield shop


async def _others_are_served(shop: Shop) -> None:
    product = await shop.product()
    buyers = [await shop.shopper() for _ in range(OTHERS)]
    for buyer in buyers:
        await buyer.add(product)
    for answer in await asyncio.gather(*(buyer.place() for buyer in buyers)):
        assert answer.status_code == 201, answer.text


async def test_a_step_that_always_kills_its_worker_stands_still_alone(bench: Platform, shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    faults = FaultFile(Path(bench.env["MERCATO_FAULTS_FILE"]))
    faults.add(Fault("poison", "worker", "crash", "reserve", times=None, customer=shopper.user_id))
    order_id = (await shopper.place(wait=0)).json()["orderId"]
    deaths = 0
    while deaths < 3:
        await asyncio.wait_for(bench.worker.died(), 60)
        deaths += 1
        with suppress(ProgramFailed):  # the poisoned step may be there before the worker has said that it is ready
            await bench.worker.restart()
    order = await shopper.until(order_id, seconds=60, needsAttention=True)
    assert order["status"] == "pending"
    seen = (await shop.support.get(f"/api/orders/{order_id}")).json()
    assert seen["attention"]["step"] == "reserve"
    assert "has ended the worker 3 times" in seen["attention"]["cause"]
    await _others_are_served(shop)
    assert bench.worker.alive
    port = bench.worker.program.environment["MERCATO_WORKER_METRICS_PORT"]  # type: ignore[index]
    async with httpx.AsyncClient() as http:
        metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    assert "mercato_steps_quarantined 1.0" in metrics

    faults.remove("poison")  # the mended version is deployed: a clean slate
    (Path(bench.env["MERCATO_DATA_DIR"]) / "workers/deaths.json").unlink()
    await bench.worker.restart()
    await shopper.until(order_id, seconds=60, status="confirmed", needsAttention=False)


async def test_a_worker_that_ends_in_order_leaves_nothing_behind(bench: Platform, shop: Shop) -> None:
    await _others_are_served(shop)
    folder = Path(bench.env["MERCATO_DATA_DIR"]) / "workers"
    assert len(list(folder.glob("*.journal"))) == 1
    await bench.worker.stop()
    assert not list(folder.glob("*.journal"))
    await bench.worker.restart()


async def test_an_input_that_cannot_be_read_stands_still_alone_and_is_reported(bench: Platform, shop: Shop) -> None:
    """As with a wrong codec key: the run of this order fails again and again, and nobody else's does."""
    cut_off = await asyncio.to_thread(
        bench.start_api, env={"MERCATO_TEMPORAL_ADDRESS": "127.0.0.1:9"}, ready="/health/live"
    )
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    async with httpx.AsyncClient(base_url=cut_off.base_url, timeout=20) as there:
        order_id = (await shopper.at(there).place()).json()["orderId"]
    await cut_off.stop()
    client = await Client.connect(bench.temporal_address)
    handle = await client.start_workflow(
        "CheckoutWorkflow", "no checkout at all", id=f"checkout-{order_id}", task_queue="checkout"
    )

    async def reported() -> Any:
        report = await check_invariants(bench.settings)
        return [breach for breach in report.breaches if (breach.invariant, breach.subject) == ("I10", order_id)]

    (breach,) = await eventually(reported, 60)
    assert "fails again and again" in breach.detail
    await _others_are_served(shop)
    await handle.terminate("its input is unreadable")  # staff end it; reconciliation undoes the order
    await bench.worker.restart({"MERCATO_RECONCILE_AFTER_SECONDS": "2"})
    await shopper.until(order_id, seconds=60, status="cancelled")


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
