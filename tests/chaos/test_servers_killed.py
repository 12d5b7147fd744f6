"""`kill -9` of PostgreSQL and Temporal under load (R5-R7), a database that only reads (R9), no Valkey at all (R8)."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from core.db import make_engine
from tests.chaos.conftest import SOON
from tests.chaos.crowd import Crowd
from tests.chaos.killing import kill_server
from tests.e2e.flow import STORY
from tests.e2e.shop import PRICE, Shop, browser
from tests.e2e.shopper import Shopper, eventually, problem
from tests.stack import Platform, Stack, start_platform, start_processor

NO_VALKEY = {"MERCATO_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture(scope="module")
def fragile() -> Iterator[Platform]:
    """On servers of its own, whose data is on the disk."""
    stack = Stack(durable=True)
    try:
        database = stack.make_database("fragile")
        yield start_platform(stack, database, start_processor(stack, database), SOON)
    finally:
        stack.close()


@pytest.fixture(scope="module")
async def market(fragile: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(fragile) as shop:
        yield shop


@pytest.mark.parametrize("server", ["postgres", "temporal"])
@pytest.mark.parametrize(
    ("orders", "kills"), [(15, 1), pytest.param(200, 5, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
async def test_a_server_killed_under_load_costs_no_order(
    server: str, orders: int, kills: int, fragile: Platform, market: Shop
) -> None:
    crowd = await Crowd.gathered(market, orders)
    placing = asyncio.create_task(crowd.one_after_another(every=0.1))
    for _ in range(kills):
        await asyncio.sleep(0.5 if kills == 1 else random.uniform(2, 6))
        await kill_server(fragile, server)
    await crowd.sold(await placing, PRICE, seconds=60 + orders / 5)


async def test_a_database_that_only_reads_takes_no_order_and_heals_by_itself(fragile: Platform, market: Shop) -> None:
    """R9: as after a failover to a replica, or on a full disk."""
    product, shopper = await market.product(), await market.shopper()
    await shopper.add(product, 2)
    under_way = await market.shopper()
    await under_way.add(product)
    await market.fault(mode="latency", seconds=1, operations=["confirm"])
    other = (await under_way.place(wait=0)).json()["orderId"]
    async with _read_only(fragile):
        for refused in [
            await shopper.place(key="kept"),
            await shopper.http.post(
                "/api/cart/add", json={"productId": product, "quantity": 1}, headers=shopper.headers
            ),
        ]:
            problem(refused, 503, "dependency_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
        assert await shopper.cart() == {product: 2}
        assert (await shopper.get(f"/api/products/{product}")).status_code == 200
        assert (await shopper.get("/api/orders/history")).json()["items"] == []
        assert (await under_way.order(other))["id"] == other
    await market.no_faults()
    placed = await shopper.insist(lambda: shopper.place(key="kept"))
    assert placed.status_code in (201, 202), placed.text
    for buyer, order_id, pieces in ((shopper, placed.json()["orderId"], 2), (under_way, other, 1)):
        await buyer.until(order_id, status="confirmed", paymentStatus="captured")
        await market.charged_once(order_id, pieces * PRICE)
    assert await market.stock(product) == (7, 0)


async def test_a_shop_that_never_had_a_valkey_sells(fragile: Platform, market: Shop) -> None:
    """R8, the whole run: streams read the log now and then instead of being told."""
    await fragile.worker.restart(NO_VALKEY)
    api = await asyncio.to_thread(fragile.start_api, env=NO_VALKEY)
    try:
        async with browser(api.base_url) as http:
            shopper = await Shopper.registered(http)
            product = await market.product()
            await shopper.add(product)
            async with shopper.listen() as stream:
                assert (await stream.next()).type == "snapshot"
                placed = await shopper.place()
                assert placed.status_code == 201, placed.text
                assert [event.type for event in await stream.until("payment.captured")] == STORY

            async def degraded() -> bool:
                return bool((await http.get("/health/ready")).json()["status"] == "degraded")

            await eventually(degraded)
        await market.charged_once(placed.json()["id"], PRICE)
    finally:
        await api.stop()
        await fragile.worker.restart()


async def test_a_valkey_that_forgets_everything_costs_nothing(fragile: Platform, market: Shop) -> None:
    """R8, FLUSHALL again and again while somebody orders, listens and signs out."""
    from core.redis import make_redis

    product, shopper = await market.product(), await market.shopper()
    redis = make_redis(fragile.redis_url)
    async with shopper.listen() as stream:
        assert (await stream.next()).type == "snapshot"
        for _ in range(3):
            await shopper.add(product)
            await redis.flushall()
            placed = await shopper.place()
            await redis.flushall()
            assert placed.status_code == 201, placed.text
            assert [event.type for event in await stream.until("payment.captured")] == STORY
            await shopper_has_an_empty_cart(shopper)
    assert (await shopper.http.post("/api/auth/logout", headers=shopper.headers)).status_code == 204
    await redis.flushall()
    problem(await shopper.get("/api/cart"), 401, "unauthenticated")
    await redis.aclose()
    assert await market.stock(product) == (7, 0)


async def shopper_has_an_empty_cart(shopper: Shopper) -> None:
    async def look() -> bool:
        return not await shopper.cart()

    await eventually(look)


async def test_afterwards_every_invariant_holds(market: Shop) -> None:
    await market.checked()


@asynccontextmanager
async def _read_only(platform: Platform) -> AsyncIterator[None]:
    """Every transaction of the server that does not say otherwise, from now on."""
    connection = await asyncpg.connect(platform.owner_url)
    await connection.execute("SET default_transaction_read_only = off")  # ours must be able to undo it

    async def until(wanted: str) -> None:
        engine = make_engine(platform.owner_url)
        try:

            async def look() -> bool:
                async with engine.connect() as fresh:
                    shown = await fresh.exec_driver_sql("SHOW default_transaction_read_only")
                    return bool(shown.scalar() == wanted)

            await eventually(look)
        finally:
            await engine.dispose()

    await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    await connection.execute("SELECT pg_reload_conf()")
    try:
        await until("on")
        yield
    finally:
        await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")
        await until("off")
        await connection.close()
