"""From the cart to the confirmation, and every way in which that can end otherwise."""

import asyncio
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
    """The address of an API whose reservations end after six seconds."""
    api = shop.platform.start_api(env={"MERCATO_RESERVATION_TTL_SECONDS": "6"})
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


async def test_a_sold_order_that_is_cancelled_is_refunded_and_restocked(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = (await shopper.place()).json()["id"]
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    async with shopper.listen() as stream:
        await stream.next()
        cancelled = await shopper.cancel(order_id)
        assert cancelled.status_code == 200, cancelled.text
        assert (cancelled.json()["status"], cancelled.json()["paymentStatus"]) == ("cancelled", "refunded")
        told = [event.type for event in await stream.until("order.cancelled")]
        assert told[-3:] == ["order.cancel_requested", "payment.refunded", "order.cancelled"]
    assert await shop.stock(product) == (10, 0)
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["refunded"], intent["charges"]) == (2 * PRICE, 2 * PRICE, 0)
    payment = await shop.payment(order_id)
    assert [posted["kind"] for posted in payment["ledger"]] == ["authorize", "capture", "refund"]
    assert await shopper.cart() == {}
    assert cancelled.json()["reason"] == "changed my mind"


async def test_ten_cancels_of_a_sold_order_are_one_refund(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = (await shopper.place()).json()["id"]
    answers = await asyncio.gather(*(shopper.cancel(order_id) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {200, 202}, [answer.text for answer in answers]
    await shopper.until(order_id, status="cancelled", paymentStatus="refunded")
    (intent,) = await shop.books(order_id)
    assert intent["refunded"] == 2 * PRICE
    assert await shop.stock(product) == (10, 0)


async def test_what_was_never_sold_cannot_be_cancelled_after_its_end(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    await shop.set_stock(product, 0)
    order_id = problem(await shopper.place(), 409, "out_of_stock")["orderId"]
    refused = problem(await shopper.cancel(order_id), 409, "not_cancellable")
    assert refused["orderId"] == order_id


async def test_a_refund_that_fails_is_told_to_staff_and_tried_again_when_they_say_so(shop: Shop) -> None:
    """R29, after the sale: the order waits, visibly, and nothing is given back twice."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place()).json()["id"]
    await shop.fault(mode="error_503", operations=["refund"])
    try:
        assert (await shopper.cancel(order_id, wait=1)).status_code == 202
        order = await shopper.until(order_id, needsAttention=True)
        assert (order["status"], order["paymentStatus"]) == ("confirmed", "captured")
        seen = (await shop.support.get(f"/api/orders/{order_id}")).json()
        assert seen["attention"]["step"] == "refund"
    finally:
        await shop.no_faults()
    path, body = f"/api/orders/{order_id}/resolve", {"action": "retry", "reason": "the processor is back"}
    assert (await shopper.post(path, body)).status_code == 403
    mended = await shop.support.post(path, body)
    # it may have mended itself in this moment
    assert mended.status_code in (200, 409), mended.text
    await shopper.until(order_id, status="cancelled", paymentStatus="refunded", needsAttention=False)
    (intent,) = await shop.books(order_id)
    assert intent["refunded"] == PRICE


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
    await shop.fault(
        mode="latency_in_flight", seconds=1, operations=["confirm"], times=1
    )  # else it may be sold at once
    taken = await shopper.place(wait=0)
    assert taken.status_code == 202
    assert taken.headers["location"] == f"/api/orders/{taken.json()['orderId']}"
    await shopper.until(taken.json()["orderId"], status="confirmed", paymentStatus="captured")


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
