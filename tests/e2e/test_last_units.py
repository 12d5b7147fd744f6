"""Two hundred buyers and ten units."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from api.tokens import make_signer
from models.types import Role
from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import Shopper

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
    if answer.status_code == 202:  # the wait was over first: the stream tells the rest
        async with buyer.listen(f"/api/orders/{answer.json()['orderId']}/events", last="0") as stream:
            await stream.until("order.confirmed", "order.rejected", seconds=60)
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
