"""PostgreSQL, Valkey, Temporal gone while the shop is open: 503 or late, and nothing to restart by hand afterwards."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.e2e.flow import STORY
from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import DECLINED, Shopper, eventually, problem
from tests.stack import Platform, Stack, start_platform, start_processor


@pytest.fixture(scope="module")
def fragile() -> Iterator[Platform]:
    """A platform on servers of its own, which may be taken away without disturbing other tests."""
    stack = Stack(durable=True)
    try:
        database = stack.make_database("fragile")
        yield start_platform(stack, database, start_processor(stack, database))
    finally:
        stack.close()


@pytest.fixture(scope="module")
async def frail(fragile: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(fragile) as shop:
        yield shop


@asynccontextmanager
async def without(platform: Platform, server: str) -> AsyncIterator[None]:
    """Takes `server` away, and brings it back with the data it had."""
    supervisor = platform.stack.supervisor
    program = supervisor.programs[server].program
    await platform.stack.awaitable(supervisor.stop(server))
    try:
        yield
    finally:
        await platform.stack.awaitable(supervisor.start(program))


async def _unavailable(answer: httpx.Response) -> dict[str, object]:
    body = problem(answer, 503, "dependency_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    return body


async def _late(answer: httpx.Response) -> str:
    """The order's id: it was taken, whether or not Temporal's silence was told from slowness (503, or 202)."""
    if answer.status_code != 202:
        return str((await _unavailable(answer))["orderId"])
    assert answer.json()["status"] == "pending"
    return str(answer.json()["orderId"])


async def _ready(shop: Shop, status: str) -> None:
    async def look() -> bool:
        answer = await shop.http.get("/health/ready")
        return answer.headers["content-type"] == "application/json" and answer.json()["status"] == status

    await eventually(look)


async def test_without_postgresql_everything_is_503_and_comes_back(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product, 2)
    async with without(frail.platform, "postgres"):
        await _ready(frail, "unavailable")
        for answer in [
            await shopper.place(key="kept"),
            await shopper.get("/api/cart"),
            await shopper.get("/api/orders/history"),
            await shopper.get("/api/orders/events"),
            await shopper.get(f"/api/products/{product}"),
            await shopper.http.post("/api/auth/login", json={"email": shopper.email, "password": "x" * 12}),
        ]:
            await _unavailable(answer)
        assert (await frail.http.get("/health/live")).status_code == 200
    await _ready(frail, "ready")
    placed = await shopper.insist(lambda: shopper.place(key="kept"))
    assert placed.status_code in (201, 202), placed.text
    await shopper.until(placed.json()["orderId"], paymentStatus="captured")
    await frail.charged_once(placed.json()["orderId"], 2 * PRICE)
    history = (await shopper.get("/api/orders/history")).json()["items"]
    assert len(history) == 1


async def test_an_order_under_way_survives_the_loss_of_postgresql(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product, 2)
    await frail.fault(mode="latency", seconds=1, operations=["confirm"])
    order_id = (await shopper.place(wait=0)).json()["orderId"]
    async with without(frail.platform, "postgres"):
        await _ready(frail, "unavailable")
    await _ready(frail, "ready")
    await frail.no_faults()
    await _captured(shopper, order_id)
    await frail.charged_once(order_id, 2 * PRICE)
    assert await frail.stock(product) == (8, 0)


async def test_an_open_stream_goes_on_after_the_loss_of_postgresql(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product)
    async with shopper.listen() as stream:
        assert (await stream.next()).type == "snapshot"
        async with without(frail.platform, "postgres"):
            await _ready(frail, "unavailable")
        placed = await shopper.insist(lambda: shopper.place(key="after"))
        assert placed.status_code in (201, 202)
        assert [event.type for event in await stream.until("payment.captured")] == STORY


async def test_without_temporal_the_order_is_kept_and_ends_once_it_is_back(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product, 2)
    async with without(frail.platform, "temporal"):
        order_id = await _late(await shopper.place(key="kept", wait=1))
        order = await shopper.order(order_id)  # reading needs no Temporal
        assert order["status"] == "pending"
        assert (await shopper.get("/api/orders/history")).status_code == 200
        assert (await shopper.get(f"/api/products/{product}")).status_code == 200
        await _ready(frail, "unavailable")
    placed = await shopper.insist(lambda: shopper.place(key="kept", wait=1))
    assert placed.json()["orderId"] == order_id
    await _captured(shopper, order_id)
    await frail.charged_once(order_id, 2 * PRICE)
    assert len((await shopper.get("/api/orders/history")).json()["items"]) == 1


async def test_an_order_nobody_asks_for_again_is_started_by_reconciliation(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product)
    async with without(frail.platform, "temporal"):
        order_id = await _late(await shopper.place(wait=1))
    await _captured(shopper, order_id)
    await frail.charged_once(order_id, PRICE)


async def test_an_order_that_waits_for_a_card_survives_the_loss_of_temporal(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    async with without(frail.platform, "temporal"):
        unpaid = await shopper.pay(order_id, key="card", wait=1)
        assert unpaid.status_code in (202, 503), unpaid.text
        assert (await shopper.order(order_id))["status"] == "action_required"
    paid = await shopper.insist(lambda: shopper.pay(order_id, key="card"))
    assert paid.status_code in (201, 202), paid.text
    await _captured(shopper, order_id)
    await frail.charged_once(order_id, PRICE)


async def test_without_valkey_orders_go_on_and_streams_are_late(frail: Shop) -> None:
    product, shopper = await frail.product(), await frail.shopper()
    await shopper.add(product, 2)
    async with shopper.listen() as stream:
        assert (await stream.next()).type == "snapshot"
        async with without(frail.platform, "valkey"):
            await _ready(frail, "degraded")
            placed = await shopper.place()
            assert placed.status_code == 201, placed.text
            assert [event.type for event in await stream.until("payment.captured")] == STORY
            newcomer = await frail.shopper()
            assert (await newcomer.get("/api/cart")).status_code == 200
            assert (await newcomer.http.post("/api/auth/logout", headers=newcomer.headers)).status_code == 204
            problem(await newcomer.get("/api/cart"), 401, "unauthenticated")
    await _ready(frail, "ready")
    problem(await newcomer.get("/api/cart"), 401, "unauthenticated")
    await frail.charged_once(placed.json()["id"], 2 * PRICE)


async def test_many_orders_placed_into_an_outage_end_right(frail: Shop) -> None:
    """PostgreSQL goes and comes while ten shoppers order; each insists, with one key, until there is an answer."""
    product = await frail.product(stock=10)
    shoppers = await asyncio.gather(*(frail.shopper() for _ in range(10)))
    await asyncio.gather(*(shopper.add(product) for shopper in shoppers))

    async def insist(shopper: Shopper) -> str:
        placed = await shopper.insist(lambda: shopper.place(key="insist", wait=2))
        assert placed.status_code in (201, 202), placed.text
        return str(placed.json()["orderId"])

    ordering = [asyncio.create_task(insist(shopper)) for shopper in shoppers]
    async with without(frail.platform, "postgres"):
        await _ready(frail, "unavailable")
    order_ids = await asyncio.gather(*ordering)
    for shopper, order_id in zip(shoppers, order_ids, strict=True):
        await _captured(shopper, order_id)
        await frail.charged_once(order_id, PRICE)
    assert await frail.stock(product) == (0, 0)


async def _captured(shopper: Shopper, order_id: str) -> None:
    async def look() -> bool:
        answer = await shopper.get(f"/api/orders/{order_id}")
        return answer.status_code == 200 and answer.json()["paymentStatus"] == "captured"

    await eventually(look, 60)


async def test_afterwards_every_invariant_holds(frail: Shop) -> None:
    await frail.checked()
