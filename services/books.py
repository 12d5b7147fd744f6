"""The processor's books held against ours: what each of its intents says of us. Rules only, no I/O.

A break is found by what is *certain*: an intent that holds or has taken money, and a payment or an order of ours that
does not account for it. What is under way (a run is at work, an answer is due) is none, and is only told to its run.
"""

from dataclasses import dataclass
from typing import Literal

from models.orders import Order
from models.payments import Payment
from models.types import OrderStatus, PaymentStatus
from services.processor import Intent

Kind = Literal["extra_charge", "amount_mismatch", "money_without_order", "payment_mismatch", "hold_lapsed"]
KINDS: tuple[Kind, ...] = (
    "extra_charge",
    "amount_mismatch",
    "money_without_order",
    "payment_mismatch",
    "hold_lapsed",
)
GIVEN_BACK: tuple[Kind, ...] = ("extra_charge", "money_without_order")

_SAYS = {"requires_capture": PaymentStatus.AUTHORIZED, "succeeded": PaymentStatus.CAPTURED}
_BEFORE = (PaymentStatus.NONE, PaymentStatus.DECLINED, PaymentStatus.UNKNOWN)


@dataclass(frozen=True)
class Finding:
    """What is wrong with an intent, in a word and in a sentence for staff."""

    kind: Kind
    says: str


def compare(intent: Intent, payment: Payment | None, order: Order | None) -> Finding | None:
    """What this intent breaks; None: all is well, or under way. `payment` and `order` are those it names."""
    money = _SAYS.get(intent.status)
    if payment is None or payment.intent_id != intent.id:
        if money is None or (payment is not None and payment.intent_id is None and _open(order)):
            return None  # no money, or our note of the intent is being written
        return Finding("extra_charge", f"{_amount(intent)} {_verb(intent)} for an intent that we never asked for")
    if money and (intent.amount, intent.currency) != (payment.amount, payment.currency):
        ours = f"{payment.amount} {payment.currency}"
        return Finding("amount_mismatch", f"the processor says {_amount(intent)}, we asked for {ours}")
    status = PaymentStatus(payment.status)
    if money and not _open(order) and (order is None or order.status != OrderStatus.CONFIRMED):
        if status is not PaymentStatus.REFUNDED:
            of = f"order is {order.status}" if order else "order does not exist"
            return Finding("money_without_order", f"{_amount(intent)} {_verb(intent)}, and the {of}")
        return None
    if money and status in (*_BEFORE, PaymentStatus.VOIDED):
        return Finding("payment_mismatch", f"{_amount(intent)} {_verb(intent)}, our payment says {status.value}")
    if intent.status == "succeeded" and status is PaymentStatus.AUTHORIZED:
        return Finding("payment_mismatch", f"{_amount(intent)} taken, our payment says {status.value}")
    if intent.status == "canceled" and status is PaymentStatus.AUTHORIZED and payment.void_requested_at is None:
        return Finding("hold_lapsed", "the processor has let go of the money that our payment says is held")
    return None


def _open(order: Order | None) -> bool:
    return order is not None and not OrderStatus(order.status).is_ended and order.status != OrderStatus.CONFIRMED


def _amount(intent: Intent) -> str:
    return f"{intent.amount_received or intent.amount_capturable or intent.amount} {intent.currency}"


def _verb(intent: Intent) -> str:
    return "taken" if intent.status == "succeeded" else "held"
