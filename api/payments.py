"""Payments over HTTP: staff look at what was held, taken and given back. Money itself moves by the checkout only."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter

from api.auth import StaffUser
from api.deps import PaymentsSession
from api.shapes import ResponseModel
from models.errors import NotFound
from models.payments import Attempt, AttemptState, LedgerKind
from models.types import Money, PaymentStatus
from services import payments
from services.ledger import Posted

router = APIRouter(tags=["payments"])


class AttemptView(ResponseModel):
    """One card that was tried; the card itself is not shown."""

    attempt: int
    state: AttemptState
    decline_code: str | None
    tries: int
    created_at: datetime
    answered_at: datetime | None


class EntryView(ResponseModel):
    """Positive is debit, negative is credit, in minor units."""

    account: str
    amount: int
    currency: str


class TransactionView(ResponseModel):
    """The entries sum to zero."""

    kind: LedgerKind
    key: str
    at: datetime
    entries: list[EntryView]


class PaymentView(ResponseModel):
    order_id: UUID
    intent_id: str | None
    amount: Money | None
    status: PaymentStatus
    void_requested_at: datetime | None
    voided_at: datetime | None
    created_at: datetime
    updated_at: datetime
    attempts: list[AttemptView]
    ledger: list[TransactionView]


@router.get("/api/payments/{order_id}")
async def read(user: StaffUser, order_id: UUID, session: PaymentsSession) -> PaymentView:  # noqa: ARG001
    """Staff: the payment of an order with its attempts and its ledger."""
    payment = await payments.get_payment(session, order_id)
    if payment is None:
        raise NotFound("There is no payment for this order.")
    return PaymentView(
        order_id=payment.order_id,
        intent_id=payment.intent_id,
        amount=payments.amount_of(payment),
        status=PaymentStatus(payment.status),
        void_requested_at=payment.void_requested_at,
        voided_at=payment.voided_at,
        created_at=payment.created_at,
        updated_at=payment.updated_at,
        attempts=[_attempt_view(attempt) for attempt in await payments.attempts_of(session, order_id)],
        ledger=[_transaction_view(posted) for posted in await payments.ledger_of(session, order_id)],
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        attempt=attempt.attempt,
        state=AttemptState(attempt.state),
        decline_code=attempt.decline_code,
        tries=attempt.tries,
        created_at=attempt.created_at,
        answered_at=attempt.answered_at,
    )


def _transaction_view(posted: Posted) -> TransactionView:
    entries = [
        EntryView(account=entry.account, amount=entry.amount_minor, currency=entry.currency) for entry in posted.entries
    ]
    return TransactionView(kind=LedgerKind(posted.kind), key=posted.key, at=posted.at, entries=entries)
