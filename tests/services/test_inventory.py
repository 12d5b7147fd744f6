"""Stock under a crowd, on the real PostgreSQL: nothing oversold, nothing lost, one end for each reservation."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from core.db import make_engine, make_sessions
from core.settings import derived_role_url
from models.errors import Conflict, NotFound
from models.messages import Shortage
from models.types import ReservationState
from services import inventory
from tests.services.racing import so_many_wait, somebody_waits_for
from tests.warehouse import Warehouse

TTL = 600
ACTIVE, COMMITTED, RELEASED = ReservationState.ACTIVE, ReservationState.COMMITTED, ReservationState.RELEASED


@pytest.fixture(scope="module")
async def warehouse(database_url: str) -> AsyncIterator[Warehouse]:
    engine = make_engine(derived_role_url(database_url, "mercato_catalog"), pool_size=16)
    yield Warehouse(make_sessions(engine))
    await engine.dispose()


@pytest.fixture(autouse=True)
async def books_balance(warehouse: Warehouse) -> AsyncIterator[None]:
    yield
    assert await warehouse.breaks() == []


async def test_two_hundred_buyers_of_ten_units_get_exactly_ten(warehouse: Warehouse) -> None:
    product = await warehouse.product(10)
    answers = await asyncio.gather(*(warehouse.run(inventory.reserve, uuid4(), {product: 1}, TTL) for _ in range(200)))
    assert Counter(answer.state for answer in answers) == {ACTIVE: 10, None: 190}
    refused = [answer for answer in answers if answer.state is None]
    assert all(answer.shortages == [Shortage(product_id=product, requested=1, available=0)] for answer in refused)
    assert await warehouse.stock(product) == (10, 10)


async def test_orders_that_share_products_in_any_order_do_not_deadlock(warehouse: Warehouse) -> None:
    a, b = await warehouse.product(1000), await warehouse.product(1000)

    async def buy(nth: int) -> ReservationState | None:
        order = uuid4()
        await warehouse.run(inventory.reserve, order, {a: 1, b: 2} if nth % 2 else {b: 2, a: 1}, TTL)
        return await warehouse.run(inventory.commit, order)

    assert set(await asyncio.gather(*(buy(nth) for nth in range(100)))) == {COMMITTED}
    assert await warehouse.stock(a) == (900, 0)
    assert await warehouse.stock(b) == (800, 0)


async def test_one_short_line_holds_nothing_of_the_others(warehouse: Warehouse) -> None:
    plenty, scarce, unknown = await warehouse.product(50), await warehouse.product(2), 2**40
    order = uuid4()
    answer = await warehouse.run(inventory.reserve, order, {plenty: 5, scarce: 3, unknown: 1}, TTL)
    assert answer.state is None
    assert answer.shortages == [
        Shortage(product_id=scarce, requested=3, available=2),
        Shortage(product_id=unknown, requested=1, available=0),
    ]
    assert await warehouse.stock(plenty) == (50, 0)
    assert await warehouse.run(inventory.state_of, order) is None
    smaller = await warehouse.run(inventory.reserve, order, {plenty: 5, scarce: 2}, TTL)
    assert smaller.state is ACTIVE


async def test_a_repeated_reserve_answers_from_the_stored_row(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(3), uuid4()
    answers = await asyncio.gather(*(warehouse.run(inventory.reserve, order, {product: 3}, TTL) for _ in range(12)))
    assert {answer.state for answer in answers} == {ACTIVE}
    assert len({answer.expires_at for answer in answers}) == 1
    assert all(TTL - 60 < (answer.seconds_left or 0) <= TTL for answer in answers)
    assert await warehouse.stock(product) == (3, 3)


async def test_commit_sells_once_and_release_then_changes_nothing(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(5), uuid4()
    await warehouse.run(inventory.reserve, order, {product: 2}, TTL)
    assert [await warehouse.run(inventory.commit, order) for _ in range(2)] == [COMMITTED, COMMITTED]
    assert await warehouse.run(inventory.release, order) is COMMITTED
    assert (await warehouse.run(inventory.reserve, order, {product: 2}, TTL)).state is COMMITTED
    assert await warehouse.stock(product) == (3, 0)


async def test_release_gives_back_once_and_commit_then_refuses(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(5), uuid4()
    await warehouse.run(inventory.reserve, order, {product: 2}, TTL)
    assert [await warehouse.run(inventory.release, order) for _ in range(2)] == [RELEASED, RELEASED]
    assert await warehouse.run(inventory.commit, order) is RELEASED
    assert (await warehouse.run(inventory.prolong, order, TTL)).state is RELEASED
    assert await warehouse.stock(product) == (5, 0)


async def test_a_reserve_that_comes_after_its_release_holds_nothing(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(5), uuid4()
    assert await warehouse.run(inventory.release, order) is RELEASED
    assert (await warehouse.run(inventory.reserve, order, {product: 1}, TTL)).state is RELEASED
    assert await warehouse.run(inventory.commit, order) is RELEASED
    assert await warehouse.stock(product) == (5, 0)


async def test_an_order_never_reserved_can_be_neither_committed_nor_prolonged(warehouse: Warehouse) -> None:
    assert await warehouse.run(inventory.commit, uuid4()) is None
    assert (await warehouse.run(inventory.prolong, uuid4(), TTL)).state is None


@pytest.mark.parametrize("seed", range(4))
async def test_release_racing_commit_ends_in_exactly_one_of_them(warehouse: Warehouse, seed: int) -> None:
    dice, a, b = Random(seed), await warehouse.product(100), await warehouse.product(100)
    sold = 0
    for _ in range(40):
        order: UUID = uuid4()
        late = dice.random() < 0.3  # the reserve is itself part of the race
        reserve = warehouse.run(inventory.reserve, order, {a: 1, b: 2}, TTL)
        if not late:
            await reserve
        race = [
            warehouse.run(inventory.commit, order),
            warehouse.run(inventory.release, order),
            warehouse.run(inventory.commit, order),
            *([reserve] if late else []),
        ]
        dice.shuffle(race)
        answers = await asyncio.gather(*race)
        end = await warehouse.run(inventory.state_of, order)
        assert end in (COMMITTED, RELEASED)
        assert {answer for answer in answers if answer in (COMMITTED, RELEASED)} == {end}
        sold += end is COMMITTED
    assert await warehouse.stock(a) == (100 - sold, 0)
    assert await warehouse.stock(b) == (100 - 2 * sold, 0)


async def test_a_reserve_that_waits_sees_the_delivery_it_waited_for(warehouse: Warehouse) -> None:
    product = await warehouse.product(2)
    await warehouse.run(inventory.reserve, uuid4(), {product: 2}, TTL)
    async with warehouse.sessions.begin() as delivery:
        await inventory.set_on_hand(delivery, product, 5, actor="staff")
        waiting = asyncio.create_task(warehouse.run(inventory.reserve, uuid4(), {product: 3}, TTL))
        await somebody_waits_for(delivery, warehouse.sessions)
    assert (await waiting).state is ACTIVE
    assert await warehouse.stock(product) == (5, 5)


async def test_a_count_that_waits_sees_what_was_given_back_meanwhile(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(9), uuid4()
    await warehouse.run(inventory.reserve, order, {product: 8}, TTL)
    async with warehouse.sessions.begin() as giving_back:
        await inventory.release(giving_back, order)
        waiting = asyncio.create_task(warehouse.run(inventory.set_on_hand, product, 1, actor="staff"))
        await somebody_waits_for(giving_back, warehouse.sessions)
    await waiting
    assert await warehouse.stock(product) == (1, 0)


async def test_a_repeated_reserve_that_comes_to_its_stock_late_does_not_deadlock_with_the_release(
    warehouse: Warehouse,
) -> None:
    first, second, order = await warehouse.product(10), await warehouse.product(10), uuid4()
    lines = {first: 1, second: 1}
    sessions = warehouse.sessions
    async with sessions.begin() as second_delivery:
        async with sessions.begin() as first_delivery:
            async with sessions.begin() as reserving:
                await inventory.reserve(reserving, order, lines, TTL)
                # whoever asks first is served first: the repeat stands behind the delivery of the first product
                deliveries = [asyncio.create_task(inventory.set_on_hand(first_delivery, first, 11, actor="staff"))]
                await so_many_wait(sessions, 1)
                repeat = asyncio.create_task(warehouse.run(inventory.reserve, order, lines, TTL))
                await so_many_wait(sessions, 2)
                deliveries += [asyncio.create_task(inventory.set_on_hand(second_delivery, second, 11, actor="staff"))]
                await so_many_wait(sessions, 3)
            await asyncio.gather(*deliveries)
        await somebody_waits_for(second_delivery, sessions)  # the repeat, which has the first product
        release = asyncio.create_task(warehouse.run(inventory.release, order))
        await so_many_wait(sessions, 2)
    assert (await repeat).state in (ACTIVE, RELEASED)
    assert await release is RELEASED
    assert [await warehouse.stock(product) for product in lines] == [(11, 0), (11, 0)]


async def test_everything_at_once_keeps_every_balance(warehouse: Warehouse) -> None:
    dice = Random(7)
    products = [await warehouse.product(20) for _ in range(4)]

    async def customer() -> None:
        order = uuid4()
        lines = {product: dice.randint(1, 3) for product in dice.sample(products, dice.randint(1, 4))}
        await warehouse.run(inventory.reserve, order, lines, TTL)
        end = dice.choice((inventory.commit, inventory.release, inventory.state_of))
        await warehouse.run(end, order)

    async def staff() -> None:
        with suppress(Conflict):  # fewer than are reserved
            await warehouse.run(inventory.set_on_hand, dice.choice(products), dice.randint(0, 40), actor="staff")

    await asyncio.gather(*(staff() if nth % 5 == 0 else customer() for nth in range(150)))
    for product in products:
        on_hand, reserved = await warehouse.stock(product)
        assert 0 <= reserved <= on_hand


async def test_only_overdue_active_reservations_are_expired(warehouse: Warehouse) -> None:
    product = await warehouse.product(10)
    overdue, prolonged, ended, lasting = orders = [uuid4() for _ in range(4)]
    for order, ttl in zip(orders, (-30, -20, -10, TTL), strict=True):
        await warehouse.run(inventory.reserve, order, {product: 1}, ttl)
    await warehouse.run(inventory.release, ended)
    answer = await warehouse.run(inventory.prolong, prolonged, TTL)
    assert answer.seconds_left is not None
    assert answer.seconds_left > TTL - 60
    expired = await warehouse.run(inventory.expired, 1000)
    assert overdue in expired
    assert not {prolonged, ended, lasting} & set(expired)


async def test_prolonging_never_shortens(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(1), uuid4()
    first = await warehouse.run(inventory.reserve, order, {product: 1}, TTL)
    assert (await warehouse.run(inventory.prolong, order, 5)).expires_at == first.expires_at


async def test_staff_cannot_take_away_what_is_reserved(warehouse: Warehouse) -> None:
    product = await warehouse.product(10)
    await warehouse.run(inventory.reserve, uuid4(), {product: 4}, TTL)
    with pytest.raises(Conflict) as refused:
        await warehouse.run(inventory.set_on_hand, product, 3, actor="staff")
    assert refused.value.code == "stock_reserved"
    await warehouse.run(inventory.set_on_hand, product, 4, actor="staff", reason="counted")
    assert await warehouse.stock(product) == (4, 4)
    [entry] = await warehouse.rows(
        "SELECT kind, on_hand_delta, reason FROM catalog.stock_ledger WHERE product_id = :p AND actor = 'staff'",
        p=product,
    )
    assert tuple(entry) == ("adjust", -6, "counted")


async def test_stock_of_an_unknown_product_is_not_found(warehouse: Warehouse) -> None:
    with pytest.raises(NotFound):
        await warehouse.run(inventory.set_on_hand, 2**40, 1, actor="staff")


@pytest.mark.parametrize("lines", [{}, {1: 0}, {1: -2}])
async def test_a_reservation_of_nothing_is_a_bug_of_the_caller(warehouse: Warehouse, lines: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        await warehouse.run(inventory.reserve, uuid4(), lines, TTL)


@pytest.mark.parametrize(
    "statement", ["UPDATE catalog.stock_ledger SET on_hand_delta = 0", "DELETE FROM catalog.stock_ledger"]
)
async def test_the_ledger_can_only_grow(warehouse: Warehouse, statement: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        await warehouse.rows(statement)


async def test_what_was_sold_goes_back_on_the_shelf_once(warehouse: Warehouse) -> None:
    product, order = await warehouse.product(5), uuid4()
    await warehouse.run(inventory.reserve, order, {product: 2}, 60)
    assert await warehouse.run(inventory.restock, order) is ReservationState.ACTIVE, "nothing is sold yet"
    await warehouse.run(inventory.commit, order)
    assert await warehouse.stock(product) == (3, 0)
    restocked = await asyncio.gather(*(warehouse.run(inventory.restock, order) for _ in range(5)))
    assert set(restocked) == {ReservationState.RESTOCKED}
    assert await warehouse.stock(product) == (5, 0)
    assert await warehouse.run(inventory.commit, order) is ReservationState.RESTOCKED
    assert await warehouse.run(inventory.release, order) is ReservationState.RESTOCKED
    assert await warehouse.run(inventory.restock, uuid4()) is None
    assert not await warehouse.breaks()


async def test_running_low_out_and_back_is_told_once_each_time(warehouse: Warehouse) -> None:
    product = await warehouse.product(8)

    async def told() -> list[tuple[str, int]]:
        rows = await warehouse.rows(
            "SELECT type, available FROM catalog.stock_events WHERE product_id = :p ORDER BY id", p=product
        )
        return [(row.type, row.available) for row in rows]

    assert await told() == [("stock.back", 8)]  # a new product has none
    orders = [uuid4() for _ in range(4)]
    for order in orders:
        await warehouse.run(inventory.reserve, order, {product: 2}, 60)
        await warehouse.run(inventory.reserve, order, {product: 2}, 60)
    assert await told() == [("stock.back", 8), ("stock.low", 4), ("stock.out", 0)]
    await warehouse.run(inventory.commit, orders[0])
    assert len(await told()) == 3, "what is sold was counted when it was reserved"
    for order in orders[1:]:
        await warehouse.run(inventory.release, order)
        await warehouse.run(inventory.release, order)
    assert await told() == [("stock.back", 8), ("stock.low", 4), ("stock.out", 0), ("stock.back", 6)]
    await warehouse.run(inventory.set_on_hand, product, 6, actor="test", low_at=6)
    assert len(await told()) == 4, "another threshold counts from the next change on"
    await warehouse.run(inventory.restock, orders[0])
    assert (await told())[-1] == ("stock.back", 8)
    assert not await warehouse.breaks()
