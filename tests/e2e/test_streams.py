"""Event streams against connections that break at any moment: nothing is missed, nothing comes twice."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient

from tests.e2e.flow import STORY
from tests.e2e.shop import Shop, browser
from tests.e2e.shopper import DECLINED, Event, Shopper, problem
from tests.stack import free_port

ORDERS = 6


@pytest.fixture(scope="module")
async def without_valkey(shop: Shop) -> AsyncIterator[AsyncClient]:
    """The address of an API that never finds Valkey."""
    api = shop.platform.start_api(env={"MERCATO_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    async with browser(api.base_url) as door:
        yield door
    await api.stop()


async def _buy(shopper: Shopper, product: int, times: int) -> list[str]:
    orders = []
    for _ in range(times):
        await shopper.add(product)
        placed = await shopper.place()
        assert placed.status_code == 201, placed.text
        orders.append(placed.json()["id"])
        await shopper.until(orders[-1], paymentStatus="captured")
        await shopper.cart_is_free()
    return orders


async def test_ten_reconnects_miss_nothing_and_hear_nothing_twice(shop: Shop) -> None:
    product, shopper = await shop.product(stock=ORDERS), await shop.shopper()
    buying = asyncio.create_task(_buy(shopper, product, ORDERS))
    heard: list[Event] = []
    cuts = random.Random(20)
    last = "0"
    for connection in range(11):  # ten times cut off, wherever that is; the last one hears all the rest
        async with shopper.listen(last=last) as stream:
            assert (await stream.next()).type == "snapshot"
            left = ORDERS * len(STORY) - len(heard)
            for _ in range(left if connection == 10 else min(left, cuts.randint(0, 4))):
                heard.append(await stream.next())
                last = heard[-1].id
    orders = await buying
    assert [event.id for event in heard] == [str(seq) for seq in range(1, ORDERS * len(STORY) + 1)]
    for order_id in orders:
        assert [event.type for event in heard if event.data["orderId"] == order_id] == STORY


async def test_two_listeners_of_one_shopper_hear_the_same(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    async with shopper.listen() as one, shopper.listen() as two:
        assert (await one.next()).type == (await two.next()).type == "snapshot"
        await _buy(shopper, product, 1)
        assert await one.until("payment.captured") == await two.until("payment.captured")


async def test_the_stream_of_one_order_closes_at_its_end_and_is_not_opened_again(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    path = f"/api/orders/{order_id}/events"
    async with shopper.listen(path, last="0") as stream:
        snapshot = await stream.next()
        assert (snapshot.type, snapshot.data["id"]) == ("snapshot", order_id)
        await stream.until("payment.declined")
        assert (await shopper.pay(order_id)).status_code == 201
        rest = await stream.rest()
    assert [event.type for event in rest][-2:] == ["order.confirmed", "payment.captured"]
    again = await shopper.http.get(path, headers={**shopper.headers, "Last-Event-ID": rest[-1].id})
    assert (again.status_code, again.content) == (204, b"")
    async with shopper.listen(path, last=rest[-2].id) as stream:
        assert [event.id for event in await stream.rest()] == ["", rest[-1].id]


async def test_another_shoppers_stream_does_not_exist(shop: Shop) -> None:
    product, shopper, stranger = await shop.product(), await shop.shopper(), await shop.shopper()
    (order_id,) = await _buy(shopper, product, 1)
    problem(await stranger.get(f"/api/orders/{order_id}/events"), 404, "not_found")
    async with stranger.listen(last="0") as stream:
        assert (await stream.next()).data == {"orders": [], "lastSeq": 0}
        await shopper.add(product)
        await stranger.add(product)
        await shopper.place()
        await stranger.place()
        heard = await stream.until("payment.captured")
    assert {event.data["orderId"] for event in heard}.isdisjoint({order_id})
    assert [event.id for event in heard] == [str(seq) for seq in range(1, len(STORY) + 1)]


async def test_without_valkey_the_stream_is_late_and_right(shop: Shop, without_valkey: AsyncClient) -> None:
    product = await shop.product()
    shopper = (await shop.shopper()).at(without_valkey)
    async with shopper.listen() as stream:
        assert (await stream.next()).type == "snapshot"
        await _buy(shopper, product, 1)
        assert [event.type for event in await stream.until("payment.captured")] == STORY


async def test_a_stream_ends_when_its_session_does(shop: Shop) -> None:
    shopper = await shop.shopper()
    async with shopper.listen() as stream:
        assert (await stream.next()).type == "snapshot"
        out = await shopper.http.post("/api/auth/logout", headers=shopper.headers)
        assert out.status_code == 204
        assert await stream.rest() == []
    problem(await shopper.get("/api/orders/events"), 401, "unauthenticated")


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
