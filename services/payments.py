"""Payments: hold money, take it, give it back; each of them once, however often and however late it is asked for.

One payment intent an order, made without confirming and its id stored before any card is tried; each card is a confirm
on it. An intent takes one charge, so no repeat, no second worker and no second card can charge twice. Every step is:
a short transaction that says what will be done, the call, a short transaction with what it did. No transaction is open
across the network.

What the processor did not say for certain (timeout, lost reply, 5xx, 429, key in use) is `unknown`, never a decline:
PaymentUnknown is raised, and the repeat asks for the intent first and confirms again only when nothing happened.

A card whose bank wants to see the shopper (3-D Secure) is answered with the address where that happens; the repeat
looks what came of it. A confirm with another card works from there too, and ends the wait for the first.
"""

from collections.abc import Collection, Sequence
from typing import NoReturn
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from models.errors import Conflict, InvalidRequest, Unavailable
from models.messages import Authorization, Capture, Voiding
from models.payments import Attempt, Payment
from models.types import Money, PaymentStatus
from services import intents, ledger, processor_keys
from services import payment_records as records
from services import payment_rows as rows
from services.intents import PaymentUnknown, ProcessorMismatch
from services.processor import (
    CardDeclined,
    Intent,
    Processor,
    ProcessorUnavailable,
    RequestRefused,
)

INVALID_PAYMENT_METHOD = "invalid_payment_method"
HELD = ("requires_capture", "succeeded")


async def authorize(
    sessions: Sessions,
    processor: Processor,
    *,
    order_id: UUID,
    attempt: int,
    amount: Money,
    payment_method_id: str,
) -> Authorization:
    """Hold `amount` (minor units) with this card. A repeat of an answered attempt answers from its row.

    With `action_url` the card's bank wants to see the shopper there; nothing is held, and a repeat looks again.
    If money is held or taken already, by whichever attempt, the answer is `authorized` and nothing is charged.

    Raises:
        PaymentUnknown: retryable; attempt and payment are `unknown` until a repeat finds out.
        Unavailable: retryable; no card was tried.
        Conflict: `payment_voided` (what came too late is let go first), `payment_amount_changed`,
            `payment_method_changed`.
        InvalidRequest: the processor takes no such amount (`amount_too_small`, `amount_too_large`).
    """
    opened = await records.open_attempt(sessions, order_id, attempt, amount, payment_method_id)
    if opened.void_requested:
        await _refuse_voided(sessions, processor, order_id)
    if opened.answer is not None:
        return opened.answer
    asked = _Asked(sessions, processor, order_id, attempt, amount)
    intent_id = opened.intent_id or await intents.make(sessions, processor, order_id, amount, opened.intent_key)
    if opened.asked and (known := await asked.look(intent_id)) is not None:
        return known
    begun = await records.begin_try(sessions, order_id, attempt, intent_id)
    if begun is None:
        await _refuse_voided(sessions, processor, order_id)
    if isinstance(begun, Authorization):
        return begun
    return await asked.confirm(begun.intent_id, payment_method_id, begun.key)


async def capture(sessions: Sessions, processor: Processor, *, order_id: UUID) -> Capture:
    """Take what is held, once.

    Raises:
        Unavailable: retryable; a repeat learns whether it was taken.
        Conflict: `not_authorized`; `payment_voided`, also when the hold has lapsed at the processor.
    """
    found = await records.with_key(sessions, order_id, processor_keys.CAPTURE)
    if found is None:
        raise Conflict("No money is held for this order.", code="not_authorized")
    payment, key = found
    if payment.status in (PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
        return _captured(payment)
    if payment.intent_id is None or payment.status != PaymentStatus.AUTHORIZED:
        if payment.status == PaymentStatus.UNKNOWN:
            raise PaymentUnknown("Nobody knows yet whether money is held for this order.")
        raise Conflict("No money is held for this order.", code="not_authorized")
    if payment.void_requested_at is not None:
        raise Conflict("The money held for this order is being given back.", code="payment_voided")
    intent = await intents.act_on(sessions, processor, payment, processor_keys.CAPTURE, key, processor.capture)
    if intent.status == "succeeded":
        return _captured(await records.note_captured(sessions, order_id, intent.latest_charge))
    if intent.status == "canceled":
        await records.note_voided(sessions, order_id, None)
        raise Conflict("The processor has let go of the money held for this order.", code="payment_voided")
    raise Unavailable("The payment could not be captured yet.")


async def void(sessions: Sessions, processor: Processor, *, order_id: UUID) -> Voiding:
    """Give back what is held, and see to it that nothing can be held any more, not even by a confirm under way.

    `voided`: money was held, or nobody knew; `none`: there was nothing to give back. A payment that never began
    keeps a tombstone, so that an authorize that comes late is refused.

    Raises:
        Unavailable: retryable; the tombstone stands, the money may still be held.
        Conflict: `already_captured`.
    """
    payment = await records.request_void(sessions, order_id)
    if payment.voided_at is not None:
        return _voiding(payment)
    if payment.intent_id is None:
        try:
            # The reply to `create` may have been lost: the same key tells the id, or makes what is then closed.
            key = await processor_keys.key_for(sessions, order_id, processor_keys.INTENT)
            made = await intents.make(sessions, processor, order_id, rows.required_amount(payment), key)
        except InvalidRequest:
            return _voiding(await records.note_voided(sessions, order_id, None))
        payment.intent_id = await records.keep_intent(sessions, order_id, made)
    key = await processor_keys.key_for(sessions, order_id, processor_keys.VOID)
    intent = await intents.act_on(sessions, processor, payment, processor_keys.VOID, key, processor.cancel)
    if intent.status == "succeeded":
        await records.note_captured(sessions, order_id, intent.latest_charge)
        raise Conflict("The money has been taken; only a refund gives it back.", code="already_captured")
    if intent.status != "canceled":
        raise Unavailable("The payment could not be voided yet.")
    good_charge = intent.latest_charge if intent.decline_code is None else None
    return _voiding(await records.note_voided(sessions, order_id, good_charge))


async def next_attempt(session: AsyncSession, order_id: UUID, request_key: str, payment_method_id: str) -> int:
    """The attempt's number for a payment request; the same request key gives the same number. Never 1: that is the
    attempt that came with the order.

    Raises Conflict `payment_voided`: a new card comes too late.
    """
    return await rows.next_number(session, order_id, request_key, payment_method_id)


async def get_payment(session: AsyncSession, order_id: UUID) -> Payment | None:
    """None if nobody ever asked for this order's money."""
    return await session.get(Payment, order_id)


async def of_intents(session: AsyncSession, intent_ids: Collection[str], orders: Collection[UUID]) -> list[Payment]:
    """The payments that are about one of these intents or orders."""
    query = select(Payment).where(col(Payment.intent_id).in_(intent_ids) | col(Payment.order_id).in_(orders))
    return list((await session.exec(query)).all())


async def unknown(session: AsyncSession, older_than_seconds: int, limit: int) -> list[Payment]:
    """Payments of which nobody knows the outcome, and has not for a while; the longest first."""
    statement = text("""
        SELECT * FROM payments.payments
        WHERE status = 'unknown' AND updated_at < now() - make_interval(secs => :age) ORDER BY updated_at LIMIT :limit
    """).columns(*Payment.__table__.columns)  # type: ignore[attr-defined]
    found = await (await session.connection()).execute(statement, {"age": float(older_than_seconds), "limit": limit})
    return [Payment(**row) for row in found.mappings()]


def amount_of(payment: Payment) -> Money | None:
    """What the payment is about; None for a tombstone."""
    return rows.amount_of(payment)


async def attempts_of(session: AsyncSession, order_id: UUID) -> Sequence[Attempt]:
    """The cards tried for an order, oldest first."""
    return await rows.attempts_of(session, order_id)


async def ledger_of(session: AsyncSession, order_id: UUID) -> Sequence[ledger.Posted]:
    """The order's ledger transactions with their entries, oldest first."""
    return await ledger.of_order(session, order_id)


class _Asked:
    """One call of `authorize`: what was asked, to hold answers against."""

    def __init__(self, sessions: Sessions, processor: Processor, order_id: UUID, attempt: int, amount: Money) -> None:
        self._sessions, self._processor = sessions, processor
        self._order_id, self._attempt, self._amount = order_id, attempt, amount

    async def confirm(self, intent_id: str, payment_method_id: str, key: str) -> Authorization:
        """Try the card and write down what came of it."""
        try:
            intent = await self._processor.confirm(intent_id, self._order_id, payment_method_id, key)
        except CardDeclined as declined:
            return await self._declined(self._attempt, declined.code, declined.charge_id)
        except ProcessorUnavailable as error:
            await self._unknown(error)
        except RequestRefused as refused:
            if refused.is_payment_method:
                return await self._declined(self._attempt, INVALID_PAYMENT_METHOD, None)
            if not refused.is_state:
                raise intents.misconfigured("confirm", refused) from refused
            known = await self.look(intent_id)
            return known if known is not None else await self._unknown(ProcessorUnavailable("refused"))
        await self._check(intent, intent_id)
        if intent.status == "requires_action":
            return await self._challenged(intent)
        if intent.status in HELD:
            return await self._held(self._attempt, intent)
        if intent.status == "canceled":
            await _refuse_voided(self._sessions, self._processor, self._order_id)
        return await self._unknown(ProcessorUnavailable(intent.status))

    async def look(self, intent_id: str) -> Authorization | None:
        """What came of a confirm whose answer was lost? None: nothing, as far as the intent shows."""
        open_ = await records.unheard(self._sessions, self._order_id)
        try:
            intent = await intents.retrieve(self._processor, intent_id)
        except ProcessorUnavailable as error:
            if self._attempt in open_.challenged:
                raise  # the shopper may still be at it: that is no unknown outcome
            error.server_error = False  # that says nothing about the key of the confirm
            await self._unknown(error)
        await self._check(intent, intent_id)
        return await self._read(intent, open_)

    async def _read(self, intent: Intent, open_: records.Unheard) -> Authorization | None:
        waiting, challenged = open_.waiting, open_.challenged
        mine = self._attempt if self._attempt in waiting or not waiting else waiting[-1]
        if intent.status in HELD:
            return await self._held(mine, intent)
        if intent.status == "canceled":
            await _refuse_voided(self._sessions, self._processor, self._order_id)
        if intent.status == "requires_action":
            # of several challenges only the confirm itself, repeated with its key, knows whether this one is its own
            is_mine = self._attempt in waiting and challenged in ([], [self._attempt])
            return await self._challenged(intent) if is_mine else None
        unheard_of = intent.failed_charge if intent.failed_charge not in open_.answered else None
        if intent.decline_code and (unheard_of or mine in challenged):
            # a failed charge that no attempt has heard of answers the one that waits; an authentication that failed
            # has no charge
            declined = await self._declined(mine, intent.decline_code, unheard_of)
            return declined if mine == self._attempt else None
        return None

    async def _challenged(self, intent: Intent) -> Authorization:
        url = intent.action_url
        if url is None:
            return await self._unknown(ProcessorUnavailable("no address to authenticate at"))
        challenged = await records.note_challenged(self._sessions, self._order_id, self._attempt, url)
        return challenged or await _refuse_voided(self._sessions, self._processor, self._order_id)

    async def _held(self, attempt: int, intent: Intent) -> Authorization:
        held = await records.note_authorized(self._sessions, self._order_id, attempt, intent.latest_charge)
        return held or await _refuse_voided(self._sessions, self._processor, self._order_id)

    async def _declined(self, attempt: int, code: str, charge_id: str | None) -> Authorization:
        return await records.note_declined(self._sessions, self._order_id, attempt, code, charge_id)

    async def _check(self, intent: Intent, intent_id: str) -> None:
        try:
            intents.trust(intent, self._order_id, self._amount, intent_id)
        except ProcessorMismatch:
            await records.note_unknown(self._sessions, self._order_id, self._attempt, server_error=False)
            raise

    async def _unknown(self, error: ProcessorUnavailable) -> NoReturn:
        await records.note_unknown(self._sessions, self._order_id, self._attempt, server_error=error.server_error)
        raise PaymentUnknown("The processor has not said yet whether the money is held.") from error


async def _refuse_voided(sessions: Sessions, processor: Processor, order_id: UUID) -> NoReturn:
    """Nothing is held for a voided payment any more: let go of what came too late, and say no."""
    await void(sessions, processor, order_id=order_id)
    raise Conflict("This payment has been voided.", code="payment_voided")


def _captured(payment: Payment) -> Capture:
    return Capture(status=PaymentStatus(payment.status), intent_id=payment.intent_id, amount=rows.amount_of(payment))


def _voiding(payment: Payment) -> Voiding:
    voided = payment.status == PaymentStatus.VOIDED
    return Voiding(status=PaymentStatus.VOIDED if voided else PaymentStatus.NONE, intent_id=payment.intent_id)
