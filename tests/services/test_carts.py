"""Carts and claims on the real PostgreSQL: no change is lost, no line is bought twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid4

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions, make_engine, make_sessions
from core.settings import derived_role_url
from models.carts import Cart, CartLine, CartOwner
from models.errors import Conflict, InvalidRequest, MercatoError, NotFound
from models.messages import ClaimedLine
from services import carts
from tests.services.racing import somebody_waits_for

P = ParamSpec("P")
T = TypeVar("T")


class Shopper:
    """A customer of the test's own; functions of the carts service run in a transaction each."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.id: UUID = uuid4()
        self.owner = CartOwner(customer_id=self.id)

    async def run(
        self, work: Callable[Concatenate[AsyncSession, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async with self.sessions.begin() as session:
            return await work(session, *args, **kwargs)

    async def add(self, product_id: int, quantity: int) -> Cart:
        return await self.run(carts.add, self.owner, product_id, quantity)

    async def lines(self) -> dict[int, int]:
        return {line.product_id: line.quantity for line in (await self.run(carts.load, self.owner)).lines}


@pytest.fixture(scope="module")
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(derived_role_url(database_url, "mercato_carts"), pool_size=16)
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture
def shopper(sessions: Sessions) -> Shopper:
    return Shopper(sessions)


async def test_a_cart_never_used_is_empty_and_version_0(shopper: Shopper) -> None:
    assert await shopper.run(carts.load, shopper.owner) == Cart(version=0, lines=[])


async def test_lines_keep_their_order_and_quantities_add_up(shopper: Shopper) -> None:
    await shopper.add(9, 1)
    await shopper.add(3, 2)
    changed = await shopper.add(9, 4)
    assert changed == Cart(version=3, lines=[CartLine(9, 5), CartLine(3, 2)])
    assert await shopper.run(carts.load, shopper.owner) == changed


async def test_parallel_adds_lose_nothing(shopper: Shopper) -> None:
    await asyncio.gather(*(shopper.add(nth % 3, 1) for nth in range(60)))
    assert await shopper.lines() == {0: 20, 1: 20, 2: 20}
    assert (await shopper.run(carts.load, shopper.owner)).version == 60


async def test_more_than_99_of_a_product_or_100_products_are_refused_and_change_nothing(shopper: Shopper) -> None:
    for product in range(100):
        await shopper.add(product, 1)
    before = await shopper.run(carts.load, shopper.owner)
    for product, quantity, code in ((0, 99, "quantity_limit"), (1000, 1, "line_limit")):
        with pytest.raises(InvalidRequest) as refused:
            await shopper.add(product, quantity)
        assert refused.value.code == code
    assert await shopper.run(carts.load, shopper.owner) == before


async def test_lines_are_changed_removed_and_cleared(shopper: Shopper) -> None:
    await shopper.add(1, 1)
    await shopper.add(2, 1)
    assert (await shopper.run(carts.set_quantity, shopper.owner, 1, 7)).lines == [CartLine(1, 7), CartLine(2, 1)]
    assert (await shopper.run(carts.remove, shopper.owner, 1)).lines == [CartLine(2, 1)]
    cleared = await shopper.run(carts.clear, shopper.owner)
    assert cleared == Cart(version=5, lines=[])
    assert await shopper.run(carts.load, shopper.owner) == cleared


async def test_a_line_that_is_not_there_can_be_neither_changed_nor_removed(shopper: Shopper) -> None:
    for _ in range(2):  # without a cart, then with one
        with pytest.raises(NotFound):
            await shopper.run(carts.set_quantity, shopper.owner, 5, 1)
        with pytest.raises(NotFound):
            await shopper.run(carts.remove, shopper.owner, 5)
        version = (await shopper.add(6, 1)).version
    assert (await shopper.run(carts.load, shopper.owner)).version == version


async def test_a_guests_cart_moves_into_the_customers_once(shopper: Shopper) -> None:
    guest = CartOwner.guest(f"token-{uuid4()}")
    await shopper.run(carts.add, guest, 1, 60)
    await shopper.run(carts.add, guest, 2, 3)
    await shopper.add(1, 50)
    await asyncio.gather(*(shopper.run(carts.merge, guest, shopper.owner) for _ in range(5)))
    assert await shopper.lines() == {1: 99, 2: 3}
    assert await shopper.run(carts.load, guest) == Cart(version=0, lines=[])


async def test_merging_stops_at_100_lines(shopper: Shopper) -> None:
    guest = CartOwner.guest(f"token-{uuid4()}")
    for product in range(99):
        await shopper.add(product, 1)
    for product in (500, 501, 7):
        await shopper.run(carts.add, guest, product, 1)
    await shopper.run(carts.merge, guest, shopper.owner)
    lines = await shopper.lines()
    assert len(lines) == 100
    assert (500 in lines, 501 in lines, lines[7]) == (True, False, 2)


async def test_a_claim_is_repeatable_and_answers_the_lines_of_the_first_time(shopper: Shopper) -> None:
    await shopper.add(1, 2)
    await shopper.add(2, 1)
    order = uuid4()
    claimed = await asyncio.gather(*(shopper.run(carts.claim, shopper.id, order, 2) for _ in range(6)))
    await shopper.add(3, 1)
    claimed.append(await shopper.run(carts.claim, shopper.id, order, 2))
    assert all(one == claimed[0] for one in claimed)
    assert claimed[0].version == 2
    assert claimed[0].lines == [ClaimedLine(product_id=1, quantity=2), ClaimedLine(product_id=2, quantity=1)]


async def test_of_many_orders_exactly_one_gets_the_cart(shopper: Shopper) -> None:
    await shopper.add(1, 1)
    answers = await asyncio.gather(
        *(shopper.run(carts.claim, shopper.id, uuid4(), None) for _ in range(10)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(refused) == 9
    assert {refusal.code for refusal in refused} == {"cart_changed"}


async def test_a_claim_needs_lines_and_the_version_that_was_seen(shopper: Shopper) -> None:
    assert await _refusal(shopper.run(carts.claim, shopper.id, uuid4(), None)) == "cart_empty"
    await shopper.add(1, 1)
    await shopper.add(2, 1)
    assert await _refusal(shopper.run(carts.claim, shopper.id, uuid4(), 1)) == "cart_changed"
    await shopper.run(carts.clear, shopper.owner)
    assert await _refusal(shopper.run(carts.claim, shopper.id, uuid4(), None)) == "cart_empty"


async def test_what_was_bought_goes_and_what_was_added_since_stays(shopper: Shopper) -> None:
    await shopper.add(1, 5)
    await shopper.add(2, 5)
    await shopper.add(3, 5)
    order = uuid4()
    await shopper.run(carts.claim, shopper.id, order, None)
    await shopper.add(1, 2)  # more of what is being bought
    await shopper.run(carts.set_quantity, shopper.owner, 2, 1)  # fewer than are being bought
    await shopper.add(4, 1)  # something else
    version = (await shopper.run(carts.load, shopper.owner)).version
    for _ in range(3):
        await shopper.run(carts.consume_claim, order)
    assert await shopper.lines() == {1: 2, 4: 1}
    assert (await shopper.run(carts.load, shopper.owner)).version == version + 1
    await shopper.run(carts.release_claim, order)
    assert (await shopper.run(carts.claim, shopper.id, order, None)).lines[0].quantity == 5  # still as it was bought


async def test_a_released_claim_frees_the_cart_for_another_order_only(shopper: Shopper) -> None:
    await shopper.add(1, 1)
    first, second = uuid4(), uuid4()
    await shopper.run(carts.claim, shopper.id, first, None)
    for _ in range(2):
        await shopper.run(carts.release_claim, first)
    assert await _refusal(shopper.run(carts.claim, shopper.id, first, None)) == "cart_changed"
    await shopper.run(carts.consume_claim, first)
    assert await shopper.lines() == {1: 1}
    assert (await shopper.run(carts.claim, shopper.id, second, None)).lines


async def test_a_claim_that_comes_after_its_release_is_refused(shopper: Shopper) -> None:
    await shopper.add(1, 1)
    order = uuid4()
    await shopper.run(carts.release_claim, order)
    assert await _refusal(shopper.run(carts.claim, shopper.id, order, None)) == "cart_changed"
    await shopper.run(carts.consume_claim, uuid4())  # never claimed: nothing happens
    assert await shopper.lines() == {1: 1}


async def test_a_claim_that_waits_takes_the_lines_it_waited_for(shopper: Shopper) -> None:
    await shopper.add(1, 2)
    async with shopper.sessions.begin() as shopping:
        await carts.set_quantity(shopping, shopper.owner, 1, 5)
        await carts.add(shopping, shopper.owner, 2, 1)
        waiting = asyncio.create_task(shopper.run(carts.claim, shopper.id, uuid4()))
        await somebody_waits_for(shopping, shopper.sessions)
    assert (await waiting).lines == [ClaimedLine(product_id=1, quantity=5), ClaimedLine(product_id=2, quantity=1)]


async def test_a_purchase_that_waits_leaves_what_was_added_meanwhile(shopper: Shopper) -> None:
    order = uuid4()
    await shopper.add(1, 2)
    await shopper.run(carts.claim, shopper.id, order)
    async with shopper.sessions.begin() as shopping:
        await carts.set_quantity(shopping, shopper.owner, 1, 7)
        waiting = [asyncio.create_task(shopper.run(carts.consume_claim, order)) for _ in range(2)]
        await somebody_waits_for(shopping, shopper.sessions)
    await asyncio.gather(*waiting)
    assert await shopper.lines() == {1: 5}


async def test_shopping_goes_on_while_orders_come_and_go(sessions: Sessions) -> None:
    """Every unit put in is bought once, or still in the cart."""
    dice, shopper = Random(3), Shopper(sessions)
    put_in, bought = 0, 0

    async def fill() -> None:
        nonlocal put_in
        for _ in range(20):
            await shopper.add(dice.randint(1, 3), 1)
            put_in += 1

    async def order() -> None:
        nonlocal bought
        for _ in range(8):
            one = uuid4()
            try:
                claimed = await shopper.run(carts.claim, shopper.id, one, None)
            except MercatoError:
                continue
            if dice.random() < 0.3:
                await shopper.run(carts.release_claim, one)
            else:
                await asyncio.gather(*(shopper.run(carts.consume_claim, one) for _ in range(2)))
                bought += sum(line.quantity for line in claimed.lines)

    await asyncio.gather(fill(), fill(), order(), order(), order())
    assert bought
    assert put_in == bought + sum((await shopper.lines()).values())


async def _refusal(call: Awaitable[object]) -> str:
    with pytest.raises(MercatoError) as refused:
        await call
    return refused.value.code
