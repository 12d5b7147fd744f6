"""Two hundred buyers and ten units."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from api.tokens import make_signer
from models.types import Role
from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import DECLINED, Shopper, problem

BUYERS = 200
UNITS = 10

# One hash for all: nobody signs in with a password here, and 200 times Argon2 would be the longest part of the test.
_ACCOUNTS = """
    WITH made AS (
        INSERT INTO users.users (email, full_name, hashed_password)
        SELECT 'crowd-' || gen_random_uuid() || '@mercato.test', 'One of many', '$argon2id$nobody'
        FROM generate_series(1, $1) RETURNING id
    )
    INSERT INTO users.sessions (user_id, nonce, expires_at)
    SELECT id, uuid_send(gen_random_uuid()), now() + interval '1 hour' FROM made RETURNING id, user_id
"""


async def crowd(shop: Shop, count: int) -> list[Shopper]:
    """So many signed-in shoppers."""
    sign = make_signer(shop.platform.settings).sign
    rows = await shop.database.fetch(_ACCOUNTS, count)

    def shopper(user_id: UUID, session_id: UUID) -> Shopper:
        token = sign(user_id, session_id, Role.SHOPPER)
        return Shopper(shop.http, {"Authorization": f"Bearer {token}"}, str(user_id))

    return [shopper(row["user_id"], row["id"]) for row in rows]


async def outcome(buyer: Shopper, product: int) -> tuple[str, str]:
    """(order id, `confirmed` or the code of the refusal), however long it takes."""
    await buyer.insist(
        lambda: buyer.http.post("/api/cart/add", json={"productId": product, "quantity": 1}, headers=buyer.headers)
    )
    answer = await buyer.insist(lambda: buyer.place(key="the-one"))
    while answer.status_code == 202:  # the wait was over first
        answer = await buyer.insist(lambda: buyer.place(key="the-one"))
    body = answer.json()
    if answer.status_code == 201:
        return body["orderId"], body["status"]
    assert answer.status_code == 409, answer.text
    return body["orderId"], body["code"]


async def test_two_hundred_buyers_of_ten_units_get_ten(shop: Shop) -> None:
    product = await shop.product(stock=UNITS)
    buyers = await crowd(shop, BUYERS)
    outcomes = await asyncio.gather(*(outcome(buyer, product) for buyer in buyers))

    winners = [order_id for order_id, ended in outcomes if ended == "confirmed"]
    losers = [order_id for order_id, ended in outcomes if ended == "out_of_stock"]
    assert (len(winners), len(losers)) == (UNITS, BUYERS - UNITS)
    assert await shop.stock(product) == (0, 0)
    for order_id in winners:
        owner = next(buyer for buyer, (own, _) in zip(buyers, outcomes, strict=True) if own == order_id)
        await owner.until(order_id, paymentStatus="captured")
        await shop.charged_once(order_id, PRICE)
    assert await _intents_of(shop, losers) == 0


async def _intents_of(shop: Shop, order_ids: Sequence[str]) -> int:
    """How many of these orders the processor has ever heard of."""
    query = "SELECT count(*) FROM processor.payment_intent WHERE metadata ->> 'order_id' = ANY($1::text[])"
    return int(await shop.database.fetchval(query, list(order_ids)))


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()


async def test_a_shopper_holds_one_reservation_at_most(shop: Shop) -> None:
    """Nobody can hoard stock: a cart's lines belong to one open order, and a shopper has one cart."""
    product, shopper = await shop.product(stock=50), await shop.shopper()
    await shopper.add(product, 5)
    answers = await asyncio.gather(*(shopper.place(DECLINED) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [402] + [409] * 9
    assert await shop.stock(product) == (50, 5)
    await shopper.add(product, 5)  # what is added since belongs to no order, and yet it has to wait
    problem(await shopper.place(DECLINED), 409, "cart_changed")
    assert await shop.stock(product) == (50, 5)
    (order_id,) = [answer.json()["orderId"] for answer in answers if answer.status_code == 402]
    assert (await shopper.cancel(order_id)).status_code == 200
    assert await shop.stock(product) == (50, 0)


async def test_staff_are_told_when_a_product_runs_low(shop: Shop) -> None:
    product, shopper = await shop.product(stock=6), await shop.shopper()
    await shopper.add(product, 6)
    assert (await shopper.place()).status_code == 201
    problem(await shopper.get("/api/products/stock-events"), 403, "forbidden")
    page = (await shop.support.get("/api/products/stock-events", limit=100)).json()
    told = [(item["type"], item["available"]) for item in page["items"] if item["productId"] == product]
    assert told == [("stock.out", 0), ("stock.back", 6)]
    assert "mercato_products_low_on_stock" in (await shop.http.get("/metrics")).text
