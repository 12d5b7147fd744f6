"""From the cart to the confirmation, and every way in which that can end otherwise."""

from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient

from tests.e2e.shop import PRICE, Shop, browser
from tests.e2e.shopper import DECLINED, eventually, problem

DECLINES = {
    "pm_card_chargeDeclined": "generic_decline",
    "pm_card_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_chargeDeclinedLostCard": "lost_card",
    "pm_card_chargeDeclinedStolenCard": "stolen_card",
    "pm_card_chargeDeclinedExpiredCard": "expired_card",
    "pm_card_chargeDeclinedIncorrectCvc": "incorrect_cvc",
    "pm_card_chargeDeclinedProcessingError": "processing_error",
}


@pytest.fixture(scope="module")
async def hasty(shop: Shop) -> AsyncIterator[AsyncClient]:
    """The address of an API whose reservations end after two seconds."""
    api = shop.platform.start_api(env={"MERCATO_RESERVATION_TTL_SECONDS": "2"})
    async with browser(api.base_url) as door:
        yield door
    await api.stop()


@pytest.mark.parametrize(("card", "code"), DECLINES.items())
async def test_after_a_decline_a_good_card_confirms_the_same_order(card: str, code: str, shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    refused = problem(await shopper.place(card), 402, "payment_declined")
    order_id = refused["orderId"]
    assert refused["declineCode"] == code
    assert (refused["actionRequired"]["type"], refused["actionRequired"]["reason"]) == ("payment_method", code)
    waiting = await shopper.order(order_id)
    assert (waiting["status"], waiting["paymentStatus"]) == ("action_required", "declined")
    assert await shop.stock(product) == (10, 2)
    await shop.nothing_charged(order_id)

    paid = await shopper.pay(order_id)
    assert (paid.status_code, paid.json()["id"], paid.json()["status"]) == (201, order_id, "confirmed")
    await shopper.until(order_id, paymentStatus="captured")
    await shop.charged_once(order_id, 2 * PRICE)
    assert await shop.stock(product) == (8, 0)


async def test_a_second_bad_card_leaves_the_order_waiting(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    again = problem(await shopper.pay(order_id, "pm_card_chargeDeclinedExpiredCard"), 402, "payment_declined")
    assert (again["declineCode"], again["orderId"]) == ("expired_card", order_id)
    assert (await shopper.pay(order_id)).status_code == 201
    problem(await shopper.pay(order_id), 409, "not_payable")
    await shopper.until(order_id, paymentStatus="captured")
    await shop.charged_once(order_id, PRICE)


async def test_what_was_put_into_the_cart_after_the_order_stays_in_it(shop: Shop) -> None:
    bought, other, shopper = await shop.product(), await shop.product(), await shop.shopper()
    await shopper.add(bought, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    await shopper.add(bought, 1)
    await shopper.add(other, 3)
    paid = await shopper.pay(order_id)
    assert paid.json()["total"]["amount"] == 2 * PRICE

    async def what_is_left() -> bool:
        return await shopper.cart() == {bought: 1, other: 3}

    await eventually(what_is_left)


async def test_what_is_not_in_stock_is_refused_and_nothing_is_held(shop: Shop) -> None:
    scarce, plenty, shopper = await shop.product(stock=1), await shop.product(), await shop.shopper()
    await shopper.add(plenty, 2)
    await shopper.add(scarce, 2)
    refused = problem(await shopper.place(), 409, "out_of_stock")
    assert refused["lines"] == [{"productId": scarce, "requested": 2, "available": 1}]
    order = await shopper.order(refused["orderId"])
    assert (order["status"], order["reason"]) == ("rejected", "out_of_stock")
    assert (await shop.stock(scarce), await shop.stock(plenty)) == ((1, 0), (10, 0))
    assert await shop.books(refused["orderId"]) == []
    assert await shopper.cart() == {plenty: 2, scarce: 2}


async def test_a_price_that_changed_meanwhile_is_not_charged(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    cart = await shopper.add(product, 2)
    await shop.set_price(product, PRICE + 1)
    refused = problem(await shopper.place(expectedTotal=cart["total"]), 409, "price_changed")
    assert await shop.stock(product) == (10, 0)
    assert await shop.books(refused["orderId"]) == []
    assert await shopper.cart() == {product: 2}
    total = {"amount": 2 * (PRICE + 1), "currency": "EUR"}
    assert (await shopper.place(expectedTotal=total)).status_code == 201


async def test_a_cart_that_changed_meanwhile_is_not_bought(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    cart = await shopper.add(product)
    await shopper.add(product)
    refused = problem(await shopper.place(cartVersion=cart["version"]), 409, "cart_changed")
    assert await shop.stock(product) == (10, 0)
    assert await shop.books(refused["orderId"]) == []


async def test_an_empty_cart_cannot_be_bought(shop: Shop) -> None:
    shopper = await shop.shopper()
    problem(await shopper.place(), 422, "cart_empty")
    product = await shop.product()
    await shopper.add(product)
    assert (await shopper.place()).status_code == 201


async def test_a_product_taken_out_of_sale_cannot_be_bought(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    body = {"active": False}
    change = await shop.http.patch(f"/api/products/{product}", json=body, headers=shop.admin.headers)
    assert change.status_code == 200, change.text
    problem(await shopper.place(), 409, "cart_changed")
    assert await shop.stock(product) == (10, 0)


async def test_a_second_order_finds_the_cart_taken(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    problem(await shopper.place(), 409, "cart_changed")
    assert await shop.stock(product) == (10, 2)
    assert (await shopper.pay(order_id)).status_code == 201


async def test_a_waiting_order_can_be_cancelled_and_everything_goes_back(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    async with shopper.listen(f"/api/orders/{order_id}/events") as stream:
        assert (await stream.next()).data["status"] == "action_required"
        cancelled = await shopper.cancel(order_id)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        assert [event.type for event in await stream.rest()][-1] == "order.cancelled"
    again = await shopper.cancel(order_id)
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    problem(await shopper.pay(order_id), 409, "not_payable")
    assert await shop.stock(product) == (10, 0)
    await shop.nothing_charged(order_id)
    assert await shopper.cart() == {product: 2}
    assert (await shopper.place()).status_code == 201


async def test_a_confirmed_order_cannot_be_cancelled(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place()).json()["id"]
    refused = problem(await shopper.cancel(order_id), 409, "not_cancellable")
    assert refused["orderId"] == order_id
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")


async def test_without_another_card_in_time_the_order_expires(shop: Shop, hasty: AsyncClient) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.at(hasty).place(DECLINED), 402, "payment_declined")["orderId"]
    async with shopper.listen(f"/api/orders/{order_id}/events", last="0") as stream:
        story = [event.type for event in await stream.rest()]
    assert story[-1] == "order.expired"
    assert (await shopper.order(order_id))["status"] == "expired"
    assert await shop.stock(product) == (10, 0)
    await shop.nothing_charged(order_id)
    assert await shopper.cart() == {product: 2}
    problem(await shopper.pay(order_id), 409, "not_payable")


async def test_without_waiting_the_order_is_only_taken_and_ends_by_itself(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    taken = await shopper.place(wait=0)
    assert taken.status_code == 202
    assert taken.headers["location"] == f"/api/orders/{taken.json()['orderId']}"
    await shopper.until(taken.json()["orderId"], status="confirmed", paymentStatus="captured")


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
