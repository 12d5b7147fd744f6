"""`prepare` again, after the world has moved on: a lost run may have stock and money held for the first one."""

from models.types import Money, Service
from services import catalog
from tests.activities.desk import Desk


async def test_a_repeat_keeps_lines_and_total_when_the_price_has_changed_meanwhile(desk: Desk) -> None:
    product = await desk.warehouse.product(5, price_amount=250)
    checkout = await desk.placed(expected_total=Money(amount=250, currency="EUR"))
    await desk.add_to_cart(checkout, product)
    first = await desk.prepare(checkout)
    async with desk.sessions[Service.CATALOG].begin() as session:
        await catalog.update(session, product, {"price_amount": 300})
    again = await desk.prepare(checkout)
    assert (first.refusal, again.refusal) == (None, None)
    assert (again.lines, again.total) == (first.lines, first.total)
    assert (first.begun, again.begun) == (False, True)


async def test_a_repeat_is_not_refused_when_the_product_has_been_taken_off_sale(desk: Desk) -> None:
    product = await desk.warehouse.product(5)
    checkout = await desk.placed()
    await desk.add_to_cart(checkout, product)
    first = await desk.prepare(checkout)
    async with desk.sessions[Service.CATALOG].begin() as session:
        await catalog.update(session, product, {"active": False})
    again = await desk.prepare(checkout)
    assert again.refusal is None
    assert again.lines == first.lines


async def test_a_first_time_is_refused_by_a_price_that_has_changed(desk: Desk) -> None:
    product = await desk.warehouse.product(5, price_amount=300)
    checkout = await desk.placed(expected_total=Money(amount=250, currency="EUR"))
    await desk.add_to_cart(checkout, product)
    prepared = await desk.prepare(checkout)
    assert prepared.refusal is not None
    assert prepared.refusal.code == "price_changed"
    assert not prepared.begun
    assert (await desk.order(checkout.order_id)).total_amount is None
