"""Inventory as a state machine: whatever is asked, in whatever order, twice or at once, stock and its ledger are right.

The model is small: for each order what it holds and how it ended; for each product what is on the shelf.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, rule, run_state_machine_as_test

from core.db import make_engine, make_sessions
from core.settings import derived_role_url
from models.errors import Conflict
from models.types import ReservationState
from services import inventory
from tests.services.machines import LONG, QUICK, ServiceMachine
from tests.warehouse import Warehouse

ACTIVE, COMMITTED, RELEASED, RESTOCKED = ReservationState
PRODUCTS = 3
ENDS = {"commit": inventory.commit, "release": inventory.release, "restock": inventory.restock}
# what an end makes of each state (None: no reservation)
AFTER: dict[str, dict[ReservationState | None, ReservationState | None]] = {
    "commit": {None: None, ACTIVE: COMMITTED},
    "release": {None: RELEASED, ACTIVE: RELEASED},
    "restock": {None: None, COMMITTED: RESTOCKED},
}


class Inventory(ServiceMachine):
    orders = Bundle("orders")

    @initialize(on_hand=st.lists(st.integers(0, 6), min_size=PRODUCTS, max_size=PRODUCTS))
    def open_the_shop(self, on_hand: list[int]) -> None:
        self.warehouse = Warehouse(self.sessions)
        self.products = [self.run(self.warehouse.product(units)) for units in on_hand]
        self.on_hand = dict(zip(self.products, on_hand, strict=True))
        self.lines: dict[UUID, dict[int, int]] = {}
        self.state: dict[UUID, ReservationState] = {}

    def _held(self) -> dict[int, int]:
        held = dict.fromkeys(self.products, 0)
        for order, state in self.state.items():
            if state is ACTIVE:
                for product, quantity in self.lines[order].items():
                    held[product] += quantity
        return held

    async def _reserve(self, order: UUID, lines: Mapping[int, int]) -> Any:
        async with self.sessions() as session:
            return await inventory.reserve(session, order, lines, 600)

    async def _end(self, how: str, order: UUID) -> Any:
        async with self.sessions() as session:
            return await ENDS[how](session, order)

    def _ended(self, how: str, order: UUID) -> ReservationState | None:
        """The model takes the step; the state it is in then."""
        before = self.state.get(order)
        after = AFTER[how].get(before, before)
        if after is not None:
            self.state[order] = after
        if (before is ACTIVE and after is COMMITTED) or (before is COMMITTED and after is RESTOCKED):
            sign = -1 if after is COMMITTED else 1
            for product, quantity in self.lines[order].items():
                self.on_hand[product] += sign * quantity
        return after

    def _wanted(self, wanted: list[int]) -> dict[int, int]:
        return {product: quantity for product, quantity in zip(self.products, wanted, strict=True) if quantity}

    @rule(target=orders, wanted=st.lists(st.integers(0, 4), min_size=PRODUCTS, max_size=PRODUCTS).filter(any))
    def reserve(self, wanted: list[int]) -> UUID:
        order, lines = uuid4(), self._wanted(wanted)
        free = {product: self.on_hand[product] - held for product, held in self._held().items()}
        answer = self.run(self._reserve(order, lines))
        short = {product for product, quantity in lines.items() if free[product] < quantity}
        assert {one.product_id for one in answer.shortages} == short
        assert (answer.state is None) == bool(short), "all of it or nothing"
        self.lines[order] = lines
        if not short:
            self.state[order] = ACTIVE
        return order  # in any case: whether there was enough may hang on who won a race, and what is drawn must not

    @rule(order=orders)
    def reserve_again(self, order: UUID) -> None:
        if order not in self.state:
            return
        assert self.run(self._reserve(order, self.lines[order])).state is self.state[order]

    @rule(order=orders, how=st.sampled_from(sorted(ENDS)))
    def end(self, order: UUID, how: str) -> None:
        assert self.run(self._end(how, order)) is self._ended(how, order)

    @rule(how=st.sampled_from(sorted(ENDS)), wanted=st.integers(1, 3))
    def end_what_was_never_reserved(self, how: str, wanted: int) -> None:
        """A release leaves a tombstone: the reserve that comes late holds nothing."""
        order = uuid4()
        assert self.run(self._end(how, order)) is AFTER[how][None]
        if how == "release":
            late = self.run(self._reserve(order, {self.products[0]: wanted}))
            assert late.state is RELEASED

    @rule(order=orders, hows=st.tuples(st.sampled_from(sorted(ENDS)), st.sampled_from(sorted(ENDS))))
    def end_twice_at_once(self, order: UUID, hows: tuple[str, str]) -> None:
        if order not in self.state:
            return
        answers = self.both(self._end(hows[0], order), self._end(hows[1], order))
        assert not [answer for answer in answers if isinstance(answer, BaseException)], answers
        # it is as if one had come after the other; which one, the stored state tells
        found = ReservationState(self.rows("SELECT state FROM catalog.reservations WHERE order_id = :o", o=order)[0][0])
        before = self.state[order], dict(self.on_hand)
        for sequence in (hows, hows[::-1]):
            self.state[order], self.on_hand = before[0], dict(before[1])
            told = {how: self._ended(how, order) for how in sequence}
            if self.state[order] is found and set(answers) <= set(told.values()):
                return
        raise AssertionError(f"{hows} at once of {before[0]}: {found}, answers {answers}")

    @rule(wanted=st.integers(1, 4), product=st.integers(0, PRODUCTS - 1))
    def two_want_the_last(self, wanted: int, product: int) -> None:
        orders, chosen = (uuid4(), uuid4()), self.products[product]
        free = self.on_hand[chosen] - self._held()[chosen]
        answers = self.both(*(self._reserve(order, {chosen: wanted}) for order in orders))
        got = [order for order, answer in zip(orders, answers, strict=True) if answer.state is ACTIVE]
        assert len(got) == min(2, free // wanted)
        for order in got:
            self.lines[order], self.state[order] = {chosen: wanted}, ACTIVE

    @rule(product=st.integers(0, PRODUCTS - 1), on_hand=st.integers(0, 8))
    def staff_count(self, product: int, on_hand: int) -> None:
        chosen = self.products[product]

        async def count() -> Any:
            async with self.sessions() as session:
                return await inventory.set_on_hand(session, chosen, on_hand, actor="test")

        if self._held()[chosen] > on_hand:
            with pytest.raises(Conflict):
                self.run(count())
            return
        self.run(count())
        self.on_hand[chosen] = on_hand

    @invariant()
    def stock_is_as_it_should_be(self) -> None:
        if not hasattr(self, "products"):
            return
        held = self._held()
        found = {
            row.product_id: (row.on_hand, row.reserved)
            for row in self.rows("SELECT * FROM catalog.stock WHERE product_id = ANY(:p)", p=self.products)
        }
        assert found == {product: (self.on_hand[product], held[product]) for product in self.products}
        assert not [row for row in self.run(self.warehouse.breaks()) if row.product_id in self.products]


def _run(database_url: str, effort: Any) -> None:
    Inventory.url = derived_role_url(database_url, "mercato_catalog")
    run_state_machine_as_test(Inventory, settings=effort)  # type: ignore[no-untyped-call]


def test_inventory_is_right_whatever_happens(database_url: str) -> None:
    _run(database_url, QUICK)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_inventory_is_right_whatever_happens_for_long(database_url: str) -> None:
    _run(database_url, LONG)


@pytest.mark.parametrize("trials", [200, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_the_sweeper_races_the_sale_of_the_same_reservation(database_url: str, trials: int) -> None:
    """R25: each ends committed or released, never both, and the stock is what the ends say."""
    engine = make_engine(derived_role_url(database_url, "mercato_catalog"), pool_size=8)
    sessions = make_sessions(engine)
    warehouse = Warehouse(sessions)
    product = await warehouse.product(trials)

    async def trial(number: int) -> ReservationState:
        order = uuid4()
        async with sessions() as session:
            await inventory.reserve(session, order, {product: 1}, 0)

        async def end(how: Any) -> Any:
            async with sessions() as session:
                return await how(session, order)

        pair = (inventory.commit, inventory.release) if number % 2 else (inventory.release, inventory.commit)
        first, second = await asyncio.gather(end(pair[0]), end(pair[1]))
        assert first is second, "both are told the same end"
        state: ReservationState = first
        return state

    ends: list[ReservationState] = []
    for start in range(0, trials, 50):
        ends += await asyncio.gather(*(trial(number) for number in range(start, min(start + 50, trials))))
    assert set(ends) <= {COMMITTED, RELEASED}
    assert await warehouse.stock(product) == (trials - ends.count(COMMITTED), 0)
    assert not [row for row in await warehouse.breaks() if row.product_id == product]
    await engine.dispose()
