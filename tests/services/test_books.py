"""What an intent at the processor says of our books: the rules, one by one."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from models.orders import Order
from models.payments import Payment
from services.books import compare
from services.processor import Intent

ORDER = uuid4()


def intent(status: str, amount: int = 100, id_: str = "pi_1", order: UUID | None = ORDER) -> Intent:
    held, taken = (amount if status == name else 0 for name in ("requires_capture", "succeeded"))
    return Intent(id_, status, amount, "EUR", str(order) if order else None, held, taken, None)


def payment(status: str, intent_id: str | None = "pi_1") -> Payment:
    return Payment(order_id=ORDER, intent_id=intent_id, amount=100, currency="EUR", status=status)


def order(status: str) -> Order:
    return Order(id=ORDER, number="", customer_id=uuid4(), status=status, currency="EUR", checkout={})


@pytest.mark.parametrize(
    ("theirs", "ours", "sold"),
    [
        ("requires_payment_method", "none", "pending"),
        ("requires_payment_method", "declined", "expired"),
        ("requires_action", "none", "action_required"),
        ("requires_capture", "authorized", "pending"),
        ("requires_capture", "authorized", "confirmed"),
        ("succeeded", "captured", "confirmed"),
        ("succeeded", "refunded", "confirmed"),
        ("succeeded", "refunded", "cancelled"),
        ("canceled", "voided", "cancelled"),
        ("canceled", "none", "rejected"),
    ],
)
def test_what_agrees_is_no_break(theirs: str, ours: str, sold: str) -> None:
    assert compare(intent(theirs), payment(ours), order(sold)) is None


@pytest.mark.parametrize(
    ("kind", "theirs", "ours", "sold"),
    [
        ("payment_mismatch", "requires_capture", "unknown", "pending"),
        ("payment_mismatch", "requires_capture", "declined", "action_required"),
        ("payment_mismatch", "succeeded", "authorized", "confirmed"),
        ("payment_mismatch", "succeeded", "voided", "confirmed"),
        ("money_without_order", "succeeded", "captured", "cancelled"),
        ("money_without_order", "requires_capture", "authorized", "expired"),
        ("hold_lapsed", "canceled", "authorized", "confirmed"),
    ],
)
def test_what_does_not_agree_is_told(kind: str, theirs: str, ours: str, sold: str) -> None:
    found = compare(intent(theirs), payment(ours), order(sold))
    assert found is not None
    assert found.kind == kind
    assert found.says


@pytest.mark.parametrize("theirs", ["requires_capture", "succeeded"])
def test_money_of_an_intent_that_is_not_ours_is_an_extra_charge(theirs: str) -> None:
    other = intent(theirs, id_="pi_2")
    for ours, sold in (
        (payment("captured"), order("confirmed")),
        (payment("authorized"), order("pending")),
        (None, None),
    ):
        found = compare(other, ours, sold)
        assert found is not None
        assert found.kind == "extra_charge"
    assert compare(intent("requires_payment_method", id_="pi_2"), payment("captured"), order("confirmed")) is None


def test_another_amount_or_currency_is_told_whatever_else_is_so() -> None:
    found = compare(intent("requires_capture", amount=101), payment("authorized"), order("pending"))
    assert found is not None
    assert (found.kind, found.says) == ("amount_mismatch", "the processor says 101 EUR, we asked for 100 EUR")


def test_an_intent_whose_note_is_being_written_is_under_way() -> None:
    ours: Any = payment("none", intent_id=None)
    assert compare(intent("requires_capture"), ours, order("pending")) is None
