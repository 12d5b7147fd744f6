"""Refunds: what was taken for an order is given back, all of it and once, however often it is asked for."""

from uuid import UUID

from loguru import logger
from sqlalchemy import text

from core.db import Sessions
from models.errors import Unavailable
from models.messages import Refund
from models.payments import LedgerKind, Payment
from models.types import Money, PaymentStatus
from services import ledger, processor_keys
from services import payment_records as records
from services import payment_rows as rows
from services.processor import GivenBack, Processor, ProcessorUnavailable, RequestRefused

_GIVE_BACK = text(f"""
    WITH payment AS (
        UPDATE payments.payments SET status = 'refunded', updated_at = now()
        WHERE order_id = :order_id AND status = 'captured'
        RETURNING *
    ), {ledger.booking(LedgerKind.REFUND, "payment")}
    SELECT order_id FROM payment
""")


class RefundFailed(Unavailable):
    """The processor could not give the money back: it is still with us. Staff have to look, or try again."""

    default_code = "refund_failed"


async def refund(sessions: Sessions, processor: Processor, *, order_id: UUID) -> Refund:
    """Give back everything that was taken for the order. Nothing taken: nothing to do, and the status says so.

    A refund that the processor has accepted counts as given back, though a bank may take days; should it fail later,
    reconciliation finds it. Repeated under one key, it is one refund; an intent whose money is given back has nothing
    left to give under another.

    Raises:
        Unavailable: retryable; not taken yet, or the processor did not say what it did.
        RefundFailed: retryable, and then under another key.
    """
    found = await records.with_key(sessions, order_id, processor_keys.REFUND)
    if found is None:
        return Refund(status=PaymentStatus.NONE)
    payment, key = found
    status = PaymentStatus(payment.status)
    if status in (PaymentStatus.AUTHORIZED, PaymentStatus.UNKNOWN):
        raise Unavailable("The money of this order has not been taken yet.")
    if status is not PaymentStatus.CAPTURED:
        amount = rows.amount_of(payment) if status is PaymentStatus.REFUNDED else None
        return Refund(status=status, intent_id=payment.intent_id, amount=amount)
    amount = rows.required_amount(payment)
    given = await _give_back(sessions, processor, payment, key, amount)
    async with sessions() as session:
        await (await session.connection()).execute(_GIVE_BACK, {"order_id": order_id})
    return Refund(status=PaymentStatus.REFUNDED, intent_id=payment.intent_id, refund_id=given.id, amount=amount)


async def _give_back(sessions: Sessions, processor: Processor, payment: Payment, key: str, amount: Money) -> GivenBack:
    intent_id = payment.intent_id or ""
    try:
        given = await processor.refund(intent_id, key)
    except ProcessorUnavailable as error:
        if error.server_error:
            await processor_keys.note_key_error(sessions, payment.order_id, processor_keys.REFUND)
        raise
    except RequestRefused as refused:
        # Perhaps it was given back under an earlier key, or by hand at the processor.
        given = await _given_already(processor, intent_id, amount, refused)
    if not given.counts:
        logger.error("The refund {} of order {} is {}", given.id, payment.order_id, given.status)
        for _ in range(processor_keys.ERRORS_PER_KEY):  # its key would bring the same answer for ever
            await processor_keys.note_key_error(sessions, payment.order_id, processor_keys.REFUND)
        raise RefundFailed(f"The processor could not give the money back: refund {given.id} is {given.status}.")
    return given


async def _given_already(processor: Processor, intent_id: str, amount: Money, refused: RequestRefused) -> GivenBack:
    refunds = [refund for refund in await processor.refunds_of(intent_id) if refund.counts]
    if sum(refund.amount for refund in refunds) < amount.amount:
        raise RefundFailed(f"The processor refuses to give the money back: {refused.code}.") from refused
    return refunds[0]
