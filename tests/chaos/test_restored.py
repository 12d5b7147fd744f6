"""Everything is stopped and started again from the data folder: what was under way goes on, and all adds up (R47)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.conftest import SOON
from tests.cli.test_faults import faults
from tests.cli.test_up import Installation, make_installation
from tests.e2e.shop import browser
from tests.e2e.shopper import DECLINED, Shopper, problem
from tests.stack import HOST

SETTINGS = {**SOON, "MERCATO_RECONCILE_EVERY_SECONDS": "2", "MERCATO_RECONCILE_AFTER_SECONDS": "4"}


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installation = make_installation(tmp_path / ".mercato")
    installation.environment |= SETTINGS
    yield installation
    installation.mercato("down")


async def test_all_orders_go_on_after_everything_was_stopped(installation: Installation) -> None:
    await asyncio.to_thread(installation.up)
    async with browser(f"http://{HOST}:{installation.port}") as http:
        sold = await _shopper_with_cart(http)
        sold_id = (await sold.place()).json()["orderId"]
        await sold.until(sold_id, paymentStatus="captured")
        waiting = await _shopper_with_cart(http)
        waiting_id = problem(await waiting.place(DECLINED), 402, "payment_declined")["orderId"]
        unpaid, unstarted = await _shopper_with_cart(http), await _shopper_with_cart(http)
        hanging = ("--step", "capture", "--times", "0")
        await asyncio.to_thread(faults, installation, "set", "worker", "error", *hanging)
        unpaid_id = (await unpaid.place()).json()["orderId"]
        await unpaid.until(unpaid_id, status="confirmed")
        await asyncio.to_thread(faults, installation, "set", "api", "error")
        refused = problem(await unstarted.place(key="kept"), 503, "dependency_unavailable")
    down = await asyncio.to_thread(installation.mercato, "down")
    assert down.returncode == 0, down.stderr
    await asyncio.to_thread(installation.up)
    await asyncio.to_thread(faults, installation, "clear")
    async with browser(f"http://{HOST}:{installation.port}") as http:
        again = await waiting.at(http).pay(waiting_id)
        assert again.status_code in (201, 202), again.text
        for shopper, order_id in ((waiting, waiting_id), (unpaid, unpaid_id), (unstarted, refused["orderId"])):
            await shopper.at(http).until(order_id, status="confirmed", paymentStatus="captured")
        placed = await unstarted.at(http).place(key="kept")
        assert placed.json()["orderId"] == refused["orderId"]
        assert (await sold.at(http).order(sold_id))["paymentStatus"] == "captured"
    checked = await asyncio.to_thread(installation.mercato, "check")
    assert checked.returncode == 0, checked.stdout


async def _shopper_with_cart(http: httpx.AsyncClient) -> Shopper:
    shopper = await Shopper.registered(http)
    products = (await http.get("/api/products", params={"pageSize": 50})).json()["items"]
    await shopper.add(next(one["id"] for one in products if one["available"] > 10))
    return shopper
