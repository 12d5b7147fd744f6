"""Payments over HTTP: staff look at what was held, taken and given back, and the processor tells of what happened.
Money itself moves by workflows only."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Header, Request
from temporalio.service import RPCError

from api.auth import Open, StaffUser
from api.deps import PaymentsSession, Resources, ResourcesDep
from api.routing import Router
from api.shapes import ResponseModel
from core.temporal import tell_order
from models.errors import NotFound, Unavailable
from models.messages import ProcessorNews
from models.payments import Attempt, AttemptState, LedgerKind
from models.types import Money, PaymentStatus, Service
from services import payments, processor_events
from services.ledger import Posted

router = Router(tags=["payments"])


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


class Received(ResponseModel):
    received: bool = True


@router.post("/api/payments/webhook", dependencies=[Open])  # its signature says who calls
async def webhook(
    request: Request,
    resources: ResourcesDep,
    signature: Annotated[str, Header(alias="Stripe-Signature", description="Stripe's scheme: t=…,v1=…")] = "",
) -> Received:
    """For the processor: an event, signed. It wakes the order that waits for it.

    401 for a signature that is wrong, late or used before; 503 when the order cannot be told now: send it again.
    """
    secrets = resources.settings.webhook_secret.get_secret_value()
    told = processor_events.read(await request.body(), signature, secrets)
    async with resources.sessions[Service.PAYMENTS]() as session:
        order_id = await processor_events.keep(session, told)
    if order_id is not None:
        await _tell(resources, order_id, told)
        async with resources.sessions[Service.PAYMENTS]() as session:
            await processor_events.handled(session, told.event_id)
    return Received()


async def _tell(resources: Resources, order_id: UUID, told: processor_events.Told) -> None:
    """Raises Unavailable: Temporal has not taken it."""
    client = await resources.temporal.client()
    news = ProcessorNews(event_id=told.event_id, type=told.type, intent_id=told.intent_id or "")
    try:
        await tell_order(client, order_id, news)
    except RPCError as error:
        raise Unavailable("Temporal does not answer") from error


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
