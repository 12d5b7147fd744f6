"""However often a request is sent: one order, one charge, one answer."""

import asyncio

import pytest

from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import DECLINED, problem

NO_KEYS = {"missing": None, "empty": "", "300 characters": "k" * 300, "control character": "a\tb"}


async def test_twenty_posts_at_once_with_one_key_make_one_order(shop: Shop) -> None:
    product, shopper = await shop.product(stock=50), await shop.shopper()
    await shopper.add(product, 2)
    answers = await asyncio.gather(*(shopper.place(key="once") for _ in range(20)))

    assert {answer.status_code for answer in answers} <= {201, 202, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert problem(answer, 409, "idempotency_in_progress")["orderId"]
            assert int(answer.headers["retry-after"]) >= 1
    (order_id,) = {answer.json()["orderId"] for answer in answers}
    last = await shopper.insist(lambda: shopper.place(key="once"))
    assert (last.json()["id"], last.headers["idempotent-replayed"]) == (order_id, "true")
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    history = (await shopper.get("/api/orders/history")).json()["items"]
    assert [order["id"] for order in history] == [order_id]
    assert await shop.stock(product) == (48, 0)
    await shop.charged_once(order_id, 2 * PRICE)


async def test_a_repeat_answers_by_the_state_of_now(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    first = await shopper.place(DECLINED, key="place")
    assert "idempotent-replayed" not in first.headers
    order_id = problem(first, 402, "payment_declined")["orderId"]
    repeat = await shopper.place(DECLINED, key="place")
    assert problem(repeat, 402, "payment_declined")["orderId"] == order_id
    assert repeat.headers["idempotent-replayed"] == "true"
    assert (await shopper.pay(order_id)).status_code == 201
    later = await shopper.place(DECLINED, key="place")
    assert (later.status_code, later.json()["id"], later.json()["status"]) == (201, order_id, "confirmed")


async def test_a_key_with_another_body_is_refused(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place(key="mine")).json()["id"]
    problem(await shopper.place(DECLINED, key="mine"), 422, "idempotency_key_reused")
    history = (await shopper.get("/api/orders/history")).json()["items"]
    assert [order["id"] for order in history] == [order_id]


async def test_the_same_key_of_two_shoppers_is_two_keys(shop: Shop) -> None:
    product = await shop.product()
    one, two = await shop.shopper(), await shop.shopper()
    await one.add(product)
    await two.add(product)
    first, second = await one.place(key="same"), await two.place(key="same")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    assert "idempotent-replayed" not in second.headers


@pytest.mark.parametrize("key", NO_KEYS.values(), ids=NO_KEYS.keys())
@pytest.mark.parametrize("path", ["place", "payment", "cancel"])
async def test_without_a_good_key_nothing_happens(path: str, key: str | None, shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    url, body = "/api/orders/place", {"paymentMethodId": "pm_card_visa"}
    if path != "place":
        order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
        url, body = f"/api/orders/{order_id}/{path}", body if path == "payment" else {}
    headers = shopper.headers if key is None else {**shopper.headers, "Idempotency-Key": key}
    refused = await shop.http.post(url, json=body, headers=headers)
    code = refused.json()["code"]
    assert code == ("idempotency_key_invalid" if key else "idempotency_key_required")
    problem(refused, 400, code)
    assert await shopper.cart() == {product: 1}
    orders = (await shopper.get("/api/orders/history")).json()["items"]
    assert [order["status"] for order in orders] == ([] if path == "place" else ["action_required"])


async def test_a_card_sent_many_times_with_one_key_is_tried_once(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    answers = await asyncio.gather(*(shopper.pay(order_id, key="card") for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {201, 202, 409}
    last = await shopper.insist(lambda: shopper.pay(order_id, key="card"))
    assert (last.status_code, last.headers["idempotent-replayed"]) == (201, "true")
    problem(await shopper.pay(order_id, DECLINED, key="card"), 422, "idempotency_key_reused")
    await shopper.until(order_id, paymentStatus="captured")
    await shop.charged_once(order_id, PRICE)
    assert len((await shop.payment(order_id))["attempts"]) == 2


async def test_a_cancel_sent_many_times_with_one_key_is_one_cancel(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    answers = await asyncio.gather(*(shopper.cancel(order_id, key="cancel") for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 202, 409}
    last = await shopper.insist(lambda: shopper.cancel(order_id, key="cancel"))
    assert (last.status_code, last.json()["status"]) == (200, "cancelled")
    assert last.headers["idempotent-replayed"] == "true"
    assert await shop.stock(product) == (10, 0)


async def test_the_key_of_a_refused_payment_may_be_used_again(shop: Shop) -> None:
    """A 409 changed nothing, so it is not kept."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place()).json()["id"]
    for _ in range(2):
        refused = await shopper.pay(order_id, key="late")
        problem(refused, 409, "not_payable")
        assert "idempotent-replayed" not in refused.headers


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
