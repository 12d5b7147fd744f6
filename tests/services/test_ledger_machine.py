"""What payments write down, as a state machine: notes doubled, out of order, at once; the books are right after each.

No processor is asked: the notes are what its answers lead to, sensible or not.
"""

from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.settings import derived_role_url
from models.errors import MercatoError
from models.types import Money, uuid7
from services import payment_records as records
from services import refunds
from tests.services.machines import LONG, QUICK, ServiceMachine

AMOUNT = Money(amount=700)
# What the ledger may say (held, taken) of a payment in each state.
NET = {
    "none": {(0, 0)},
    "declined": {(0, 0)},
    "unknown": {(0, 0)},
    "authorized": {(700, 0)},
    "captured": {(0, 700)},
    "voided": {(0, 0)},
    "refunded": {(0, 0)},
}
FINAL = ("voided", "refunded")
NOTES = ("authorized", "declined", "challenged", "unknown", "request_void", "voided", "captured", "refunded", "begin")


class Ledger(ServiceMachine):
    @initialize()
    def place(self) -> None:
        self.order: UUID = uuid7()
        self.before = "none"
        self.opened = 0
        self._open(1)

    def _open(self, attempt: int) -> None:
        self.run(self._tolerated(records.open_attempt(self.sessions, self.order, attempt, AMOUNT, "pm_card_visa")))
        (row,) = self.rows("SELECT max(attempt) AS n FROM payments.attempts WHERE order_id = :o", o=self.order)
        self.opened = row.n or 0  # a payment that is to be voided takes no other card

    def _known(self, attempt: int) -> int:
        """The attempt, opened if it can be, one after the other as cards come; else the newest there is."""
        for number in range(self.opened + 1, attempt + 1):
            self._open(number)
        return min(attempt, self.opened)

    async def _tolerated(self, work: Coroutine[Any, Any, Any]) -> None:
        """A refusal is a fine answer, also the database's own: what is voided cannot be taken. Nothing else is."""
        try:
            await work
        except MercatoError:
            return
        except DBAPIError as error:
            if "this change is refused" not in str(error):
                raise

    def _note(self, note: str, attempt: int) -> Coroutine[Any, Any, Any]:
        sessions, order, charge = self.sessions, self.order, f"ch_{self.order}_{attempt}"
        notes: dict[str, Any] = {
            "authorized": lambda: records.note_authorized(sessions, order, attempt, charge),
            "declined": lambda: records.note_declined(sessions, order, attempt, "generic_decline", None),
            "challenged": lambda: records.note_challenged(sessions, order, attempt, "http://bank.test"),
            "unknown": lambda: records.note_unknown(sessions, order, attempt, server_error=attempt % 2 == 0),
            "request_void": lambda: records.request_void(sessions, order),
            "voided": lambda: self._if_not_taken(charge),
            "captured": lambda: records.note_captured(sessions, order, charge),
            "refunded": lambda: self._give_back(),
            "begin": lambda: records.begin_try(sessions, order, attempt, f"pi_{order}"),
        }
        return self._tolerated(notes[note]())

    async def _if_not_taken(self, charge: str) -> None:
        """The processor closes no intent whose money is taken."""
        async with self.sessions() as session:
            query = text("SELECT status FROM payments.payments WHERE order_id = :o")
            status = await (await session.connection()).scalar(query, {"o": self.order})
        if status not in ("captured", "refunded"):
            await records.note_voided(self.sessions, self.order, charge)

    async def _give_back(self) -> None:
        async with self.sessions() as session:
            await (await session.connection()).execute(refunds._GIVE_BACK, {"order_id": self.order})

    @rule(note=st.sampled_from(NOTES), attempt=st.integers(1, 3))
    def note(self, note: str, attempt: int) -> None:
        self.run(self._note(note, self._known(attempt)))

    @rule(note=st.sampled_from(NOTES), attempt=st.integers(1, 3))
    def note_twice_at_once(self, note: str, attempt: int) -> None:
        known = self._known(attempt)
        answers = self.both(self._note(note, known), self._note(note, known))
        assert answers == [None, None], answers

    @rule(pair=st.sampled_from([("authorized", "request_void"), ("captured", "refunded"), ("authorized", "declined")]))
    def two_notes_at_once(self, pair: tuple[str, str]) -> None:
        answers = self.both(self._note(pair[0], 1), self._note(pair[1], 1))
        assert answers == [None, None], answers

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "order"):
            return
        (status,) = [row.status for row in self._payments()] or ["none"]
        net = self.rows(
            """
            SELECT coalesce(sum(e.amount_minor) FILTER (WHERE e.account = 'customer:authorized'), 0)::int AS held,
                   coalesce(sum(e.amount_minor) FILTER (WHERE e.account = 'processor:receivable'), 0)::int AS taken,
                   coalesce(sum(e.amount_minor), 0)::int AS sum
            FROM payments.ledger_transactions t JOIN payments.ledger_entries e ON e.txn_id = t.id
            WHERE t.order_id = :o
            """,
            o=self.order,
        )[0]
        assert net.sum == 0
        assert (net.held, net.taken) in NET[status], (status, net)
        if self.before in FINAL:
            assert status == self.before, "an end is an end"
        if self.before == "captured":
            assert status in ("captured", "refunded")
        self.before = status
        kinds = [
            row.kind
            for row in self.rows("SELECT kind FROM payments.ledger_transactions WHERE order_id = :o", o=self.order)
        ]
        assert len(kinds) == len(set(kinds)), "each is booked once"
        holding = self.rows(
            "SELECT count(*) AS n FROM payments.attempts WHERE order_id = :o AND state = 'authorized'", o=self.order
        )[0].n
        assert holding <= 1

    def _payments(self) -> list[Any]:
        return self.rows("SELECT status FROM payments.payments WHERE order_id = :o", o=self.order)


def _run(database_url: str, effort: Any) -> None:
    Ledger.url = derived_role_url(database_url, "mercato_payments")
    run_state_machine_as_test(Ledger, settings=effort)  # type: ignore[no-untyped-call]


def test_the_ledger_is_right_whatever_is_noted(database_url: str) -> None:
    _run(database_url, QUICK)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_ledger_is_right_whatever_is_noted_for_long(database_url: str) -> None:
    _run(database_url, LONG)
