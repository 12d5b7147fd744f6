"""The whole way of an order through the front door, wherever that door is."""

from httpx import AsyncClient

from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import Shopper, eventually

STORY = ["order.placed", "order.reserved", "payment.authorized", "order.confirmed", "payment.captured"]


async def buy_two_lamps(shop: Shop, door: AsyncClient) -> None:
    """Register, sign in, listen, fill the cart, place; then look at everything that must have come of it."""
    product = await shop.product(stock=10)
    shopper = await Shopper.registered(door)
    shown = (await shopper.get(f"/api/products/{product}")).json()
    assert (shown["available"], shown["price"]["amount"]) == (10, PRICE)
    async with shopper.listen() as stream:
        snapshot = await stream.next()
        assert (snapshot.type, snapshot.id, snapshot.data["orders"]) == ("snapshot", "", [])
        cart = await shopper.add(product, 2)
        assert cart["total"]["amount"] == 2 * PRICE
        placed = await shopper.place(cartVersion=cart["version"], expectedTotal=cart["total"])
        assert placed.status_code == 201, placed.text
        events = await stream.until("payment.captured")

    order = placed.json()
    order_id = order["id"]
    assert placed.headers["location"] == f"/api/orders/{order_id}"
    assert (order["status"], order["total"]["amount"], order["orderId"]) == ("confirmed", 2 * PRICE, order_id)
    assert [event.type for event in events] == STORY
    assert [event.id for event in events] == ["1", "2", "3", "4", "5"]
    assert {event.data["orderId"] for event in events} == {order_id}
    await _is_settled(shop, shopper, product, order_id)


async def _is_settled(shop: Shop, shopper: Shopper, product: int, order_id: str) -> None:
    order = await shopper.until(order_id, paymentStatus="captured")
    assert [line["quantity"] for line in order["lines"]] == [2]
    assert await shop.stock(product) == (8, 0)
    assert (await shopper.get(f"/api/products/{product}")).json()["available"] == 8
    await shop.charged_once(order_id, 2 * PRICE)
    history = (await shopper.get("/api/orders/history")).json()["items"]
    assert [past["id"] for past in history] == [order_id]

    async def cart_is_empty() -> bool:
        return not await shopper.cart()

    async def told() -> list[str]:
        return [message["orderId"] for message in (await shopper.get("/api/notifications")).json()["items"]]

    await eventually(cart_is_empty)
    assert await eventually(told) == [order_id]
