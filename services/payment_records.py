"""What the payments service writes down between its calls to the processor: each function is one short transaction.

The payment row is locked in each change, never across the network. Two workers that carry out the same step at once
therefore see each other's notes, and a fact, once written (authorized, declined, captured, voided), stays.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, RowMapping

from core.db import Sessions
from models.errors import Conflict
from models.messages import Authorization
from models.payments import NOW, Attempt, AttemptState, LedgerKind, Payment
from models.types import Money, PaymentStatus
from services import ledger, processor_keys
from services import payment_rows as rows
from services.payment_statements import BEGIN_FIRST_TRY, HOLD, OPEN, TAKE, WITH_KEY


@dataclass(frozen=True)
class Opened:
    """How an attempt stands before the processor is asked. `answer`: it need not be asked.

    `intent_key`: for making the intent, if there is none yet. `asked`: a confirm has been sent before whose outcome
    nobody wrote down, for this attempt or an earlier one.
    """

    intent_id: str | None
    intent_key: str
    void_requested: bool = False
    asked: bool = False
    answer: Authorization | None = None


async def open_attempt(
    sessions: Sessions, order_id: UUID, attempt: int, amount: Money, payment_method_id: str
) -> Opened:
    """Write payment and attempt down, or find them.

    Raises Conflict: `payment_amount_changed`, `payment_method_changed` (an attempt is one card), `payment_voided`.
    """
    parameters = {
        "order_id": order_id,
        "amount": amount.amount,
        "currency": amount.currency,
        "attempt": attempt,
        "request_key": rows.request_key_of(attempt),
        "payment_method_id": payment_method_id,
    }
    if await _first(sessions, OPEN, parameters):
        return Opened(None, processor_keys.key(order_id, processor_keys.INTENT))
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        intent_key = await processor_keys.key_of(session, order_id, processor_keys.INTENT)
        if payment.void_requested_at is not None:
            return Opened(payment.intent_id, intent_key, void_requested=True)
        if payment.amount is None:
            payment.amount, payment.currency = amount.amount, amount.currency
        if rows.amount_of(payment) != amount:
            raise Conflict("The amount of this payment is fixed.", code="payment_amount_changed")
        await session.flush()
        await rows.insert_attempt(session, order_id, attempt, rows.request_key_of(attempt), payment_method_id)
        attempts = await rows.attempts_of(session, order_id)
        row = next(one for one in attempts if one.attempt == attempt)
        if row.payment_method_id != payment_method_id:
            raise Conflict("This payment request was made with another card.", code="payment_method_changed")
        return Opened(
            payment.intent_id,
            intent_key,
            asked=any(one.tries > 0 and not AttemptState(one.state).is_answered for one in attempts),
            answer=rows.known_answer(payment, attempts, row),
        )


@dataclass(frozen=True)
class Begun:
    """A confirm may be sent: on this intent, with this key."""

    intent_id: str
    key: str


async def begin_try(sessions: Sessions, order_id: UUID, attempt: int, intent_id: str) -> Begun | Authorization | None:
    """Note, before a confirm is sent, that it is sent.

    An Authorization instead if somebody else has the answer meanwhile; None if the payment is to be voided.
    """
    operation = f"authorize:{attempt}"
    key = processor_keys.key(order_id, operation)
    first = {"order_id": order_id, "attempt": attempt, "intent_id": intent_id, "key": key, "operation": operation}
    if row := await _first(sessions, BEGIN_FIRST_TRY, first):
        return Begun(row["intent_id"], key)
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        payment.intent_id = payment.intent_id or intent_id
        attempts = await rows.attempts_of(session, order_id)
        tried = next(one for one in attempts if one.attempt == attempt)
        if payment.void_requested_at is not None:
            return None
        if (answer := rows.known_answer(payment, attempts, tried)) is not None:
            return answer
        tried.tries += 1
        tried.confirm_key = await processor_keys.key_of(session, order_id, operation)
        return Begun(payment.intent_id, tried.confirm_key)


async def note_authorized(
    sessions: Sessions, order_id: UUID, attempt: int, charge_id: str | None
) -> Authorization | None:
    """The money is held: attempt, payment and ledger in one transaction. The other open attempts can hold nothing.

    None: the payment is to be voided, or is; a hold that came too late is written down, so that it will be let go.
    """
    if row := await _first(sessions, HOLD, {"order_id": order_id, "attempt": attempt, "charge_id": charge_id}):
        amount = Money(amount=row["amount"], currency=row["currency"])
        return Authorization(
            status=PaymentStatus.AUTHORIZED, attempt=attempt, intent_id=row["intent_id"], amount=amount
        )
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        if payment.voided_at is not None:
            return None  # the answer is older than the cancel
        if payment.status not in (PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
            await rows.book_hold(session, payment, attempt, charge_id)
        if payment.void_requested_at is not None:
            return None
        return rows.authorized(payment, await rows.attempts_of(session, order_id), attempt)


async def note_declined(
    sessions: Sessions, order_id: UUID, attempt: int, code: str, charge_id: str | None
) -> Authorization:
    """The card was declined for certain; what is already known to be held stays held."""
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        attempts = await rows.attempts_of(session, order_id)
        row = next(one for one in attempts if one.attempt == attempt)
        if (answer := rows.known_answer(payment, attempts, row)) is not None:
            return answer
        rows.decline(row, code, charge_id)
        still_unknown = any(one.state == AttemptState.UNKNOWN for one in attempts)
        rows.set_status(payment, PaymentStatus.UNKNOWN if still_unknown else PaymentStatus.DECLINED)
        return Authorization(
            status=PaymentStatus.DECLINED, attempt=attempt, decline_code=code, intent_id=payment.intent_id
        )


async def note_challenged(sessions: Sessions, order_id: UUID, attempt: int, url: str) -> Authorization | None:
    """The card's bank wants to see the shopper at `url`. The challenge of an earlier card is over with that.

    None: the payment is to be voided.
    """
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        attempts = await rows.attempts_of(session, order_id)
        row = next(one for one in attempts if one.attempt == attempt)
        if payment.void_requested_at is not None:
            return None
        if (answer := rows.known_answer(payment, attempts, row)) is not None:
            return answer
        row.state = AttemptState.ACTION_REQUIRED
        for other in attempts:
            if other.attempt != attempt and other.state == AttemptState.ACTION_REQUIRED:
                rows.decline(other, "superseded", None)
        rows.set_status(payment, PaymentStatus.NONE)
        return Authorization(status=PaymentStatus.NONE, attempt=attempt, intent_id=payment.intent_id, action_url=url)


async def note_unknown(sessions: Sessions, order_id: UUID, attempt: int, *, server_error: bool) -> None:
    """A confirm was sent and nobody knows what it did. A 5xx counts against the key."""
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        row = await session.get(Attempt, (order_id, attempt))
        if row is None or AttemptState(row.state).is_answered or row.tries == 0:
            return
        if row.state == AttemptState.ACTION_REQUIRED:
            return  # what is not known is what the shopper has done
        row.state = AttemptState.UNKNOWN
        if payment.status in (PaymentStatus.NONE, PaymentStatus.DECLINED):
            rows.set_status(payment, PaymentStatus.UNKNOWN)
        if server_error:
            await processor_keys.count_error(session, order_id, f"authorize:{attempt}")


@dataclass(frozen=True)
class Unheard:
    """`waiting`: the attempts whose confirm was sent and not answered, oldest first; `challenged`: those of them whose
    bank waits for the shopper; `answered`: the charges that have answered an attempt."""

    waiting: list[int]
    challenged: list[int]
    answered: set[str]


async def unheard(sessions: Sessions, order_id: UUID) -> Unheard:
    """What the processor has not told us yet."""
    async with sessions() as session:
        return _unheard(await rows.attempts_of(session, order_id))


async def request_void(sessions: Sessions, order_id: UUID) -> Payment:
    """Leave the tombstone: from now on no confirm is begun. Raises Conflict `already_captured`."""
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        if payment.status in (PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
            raise Conflict("The money has been taken; only a refund gives it back.", code="already_captured")
        if payment.void_requested_at is None:
            payment.void_requested_at = NOW
        if payment.amount is None:  # nobody asked for money, so there is no intent and never will be
            payment.voided_at = payment.voided_at or NOW
        return await rows.as_written(session, payment)


async def keep_intent(sessions: Sessions, order_id: UUID, intent_id: str) -> str:
    """The one intent of the payment: the first that was written down."""
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        payment.intent_id = payment.intent_id or intent_id
        return payment.intent_id


async def note_voided(sessions: Sessions, order_id: UUID, last_charge: str | None) -> Payment:
    """The processor has closed the intent. `last_charge`: its newest charge, if that was a good one.

    A hold that nobody had heard of is booked first, so that our ledger tells what the processor's books tell.
    """
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        if payment.voided_at is not None:
            return payment
        payment.voided_at = NOW
        payment.void_requested_at = payment.void_requested_at or payment.voided_at
        open_ = _unheard(await rows.attempts_of(session, order_id))
        unbooked = last_charge if last_charge not in open_.answered else None
        if payment.status != PaymentStatus.AUTHORIZED and open_.waiting and unbooked:
            await rows.book_hold(session, payment, open_.waiting[-1], unbooked)
        if payment.status == PaymentStatus.AUTHORIZED:
            await ledger.post(session, order_id, LedgerKind.VOID, rows.required_amount(payment))
        for row in await rows.attempts_of(session, order_id):
            if not AttemptState(row.state).is_answered:
                rows.decline(row, "voided", None)
        if payment.status in (PaymentStatus.AUTHORIZED, PaymentStatus.UNKNOWN):
            rows.set_status(payment, PaymentStatus.VOIDED)
        return await rows.as_written(session, payment)


async def note_captured(sessions: Sessions, order_id: UUID, charge_id: str | None) -> Payment:
    """The money is taken: payment and ledger in one transaction. A void that came too late is forgotten.

    Raises Conflict `payment_voided`: the processor closed this payment before, so what it says now cannot be.
    """
    if row := await _first(sessions, TAKE, {"order_id": order_id}):
        return Payment(**row)
    async with sessions.begin() as session:
        payment = await rows.lock(session, order_id)
        if payment.status in (PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
            return payment
        if payment.voided_at is not None:
            raise Conflict("The processor has let go of this payment before.", code="payment_voided")
        if payment.status != PaymentStatus.AUTHORIZED:
            waiting = _unheard(await rows.attempts_of(session, order_id)).waiting
            await rows.book_hold(session, payment, waiting[-1] if waiting else 1, charge_id)
        await ledger.post(session, order_id, LedgerKind.CAPTURE, rows.required_amount(payment))
        rows.set_status(payment, PaymentStatus.CAPTURED)
        payment.void_requested_at = None
        return payment


async def with_key(sessions: Sessions, order_id: UUID, operation: str) -> tuple[Payment, str] | None:
    """The payment, and the key that `operation` uses now; None if nobody ever asked for this order's money."""
    row = await _first(sessions, WITH_KEY, {"order_id": order_id, "operation": operation})
    if row is None:
        return None
    columns = dict(row)
    number = columns.pop("key_number")
    return Payment(**columns), processor_keys.key(order_id, operation, number)


async def _first(sessions: Sessions, statement: Executable, parameters: dict[str, Any]) -> RowMapping | None:
    async with sessions() as session:
        return (await (await session.connection()).execute(statement, parameters)).mappings().first()


def _unheard(attempts: list[Attempt]) -> Unheard:
    return Unheard(
        waiting=[row.attempt for row in attempts if row.tries > 0 and not AttemptState(row.state).is_answered],
        challenged=[row.attempt for row in attempts if row.state == AttemptState.ACTION_REQUIRED],
        answered={row.charge_id for row in attempts if row.charge_id},
    )
