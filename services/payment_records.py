"""What the payments service writes down between its calls to the processor: each function is one short transaction.

The payment row is locked in each change, never across the network. Two workers that carry out the same step at once
therefore see each other's notes, and a fact, once written (authorized, declined, captured, voided), stays.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, RowMapping
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from models.errors import Conflict
from models.messages import Authorization
from models.payments import NOW, Attempt, AttemptState, LedgerKind, Payment
from models.types import Money, PaymentStatus
from services import ledger, processor_keys
from services.payment_statements import BEGIN_FIRST_TRY, HOLD, OPEN, TAKE, WITH_KEY

FIRST_REQUEST = "place"


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
        "request_key": _request_key(attempt),
        "payment_method_id": payment_method_id,
    }
    if await _first(sessions, OPEN, parameters):
        return Opened(None, processor_keys.key(order_id, processor_keys.INTENT))
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        intent_key = await processor_keys.key_of(session, order_id, processor_keys.INTENT)
        if payment.void_requested_at is not None:
            return Opened(payment.intent_id, intent_key, void_requested=True)
        if payment.amount is None:
            payment.amount, payment.currency = amount.amount, amount.currency
        if amount_of(payment) != amount:
            raise Conflict("The amount of this payment is fixed.", code="payment_amount_changed")
        await session.flush()
        await _insert_attempt(session, order_id, attempt, _request_key(attempt), payment_method_id)
        attempts = await attempts_of(session, order_id)
        row = next(one for one in attempts if one.attempt == attempt)
        if row.payment_method_id != payment_method_id:
            raise Conflict("This payment request was made with another card.", code="payment_method_changed")
        return Opened(
            payment.intent_id,
            intent_key,
            asked=any(one.tries > 0 and not AttemptState(one.state).is_answered for one in attempts),
            answer=_answer(payment, attempts, row),
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
        payment = await lock(session, order_id)
        payment.intent_id = payment.intent_id or intent_id
        attempts = await attempts_of(session, order_id)
        tried = next(one for one in attempts if one.attempt == attempt)
        if payment.void_requested_at is not None:
            return None
        if (answer := _answer(payment, attempts, tried)) is not None:
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
        payment = await lock(session, order_id)
        if payment.voided_at is not None:
            return None  # the answer is older than the cancel
        if payment.status not in (PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
            await _book_hold(session, payment, attempt, charge_id)
        if payment.void_requested_at is not None:
            return None
        return _authorized(payment, await attempts_of(session, order_id), attempt)


async def note_declined(
    sessions: Sessions, order_id: UUID, attempt: int, code: str, charge_id: str | None
) -> Authorization:
    """The card was declined for certain; what is already known to be held stays held."""
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        attempts = await attempts_of(session, order_id)
        row = next(one for one in attempts if one.attempt == attempt)
        if (answer := _answer(payment, attempts, row)) is not None:
            return answer
        _decline(row, code, charge_id)
        still_unknown = any(one.state == AttemptState.UNKNOWN for one in attempts)
        _set_status(payment, PaymentStatus.UNKNOWN if still_unknown else PaymentStatus.DECLINED)
        return Authorization(
            status=PaymentStatus.DECLINED, attempt=attempt, decline_code=code, intent_id=payment.intent_id
        )


async def note_challenged(sessions: Sessions, order_id: UUID, attempt: int, url: str) -> Authorization | None:
    """The card's bank wants to see the shopper at `url`. The challenge of an earlier card is over with that.

    None: the payment is to be voided.
    """
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        attempts = await attempts_of(session, order_id)
        row = next(one for one in attempts if one.attempt == attempt)
        if payment.void_requested_at is not None:
            return None
        if (answer := _answer(payment, attempts, row)) is not None:
            return answer
        row.state = AttemptState.ACTION_REQUIRED
        for other in attempts:
            if other.attempt != attempt and other.state == AttemptState.ACTION_REQUIRED:
                _decline(other, "superseded", None)
        _set_status(payment, PaymentStatus.NONE)
        return Authorization(status=PaymentStatus.NONE, attempt=attempt, intent_id=payment.intent_id, action_url=url)


async def note_unknown(sessions: Sessions, order_id: UUID, attempt: int, *, server_error: bool) -> None:
    """A confirm was sent and nobody knows what it did. A 5xx counts against the key."""
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        row = await session.get(Attempt, (order_id, attempt))
        if row is None or AttemptState(row.state).is_answered or row.tries == 0:
            return
        if row.state == AttemptState.ACTION_REQUIRED:
            return  # what is not known is what the shopper has done
        row.state = AttemptState.UNKNOWN
        if payment.status in (PaymentStatus.NONE, PaymentStatus.DECLINED):
            _set_status(payment, PaymentStatus.UNKNOWN)
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
        return _unheard(await attempts_of(session, order_id))


async def request_void(sessions: Sessions, order_id: UUID) -> Payment:
    """Leave the tombstone: from now on no confirm is begun. Raises Conflict `already_captured`."""
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        if payment.status in (PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
            raise Conflict("The money has been taken; only a refund gives it back.", code="already_captured")
        if payment.void_requested_at is None:
            payment.void_requested_at = NOW
        if payment.amount is None:  # nobody asked for money, so there is no intent and never will be
            payment.voided_at = payment.voided_at or NOW
        return await _as_written(session, payment)


async def keep_intent(sessions: Sessions, order_id: UUID, intent_id: str) -> str:
    """The one intent of the payment: the first that was written down."""
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        payment.intent_id = payment.intent_id or intent_id
        return payment.intent_id


async def note_voided(sessions: Sessions, order_id: UUID, last_charge: str | None) -> Payment:
    """The processor has closed the intent. `last_charge`: its newest charge, if that was a good one.

    A hold that nobody had heard of is booked first, so that our ledger tells what the processor's books tell.
    """
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        if payment.voided_at is not None:
            return payment
        payment.voided_at = NOW
        payment.void_requested_at = payment.void_requested_at or payment.voided_at
        open_ = _unheard(await attempts_of(session, order_id))
        unbooked = last_charge if last_charge not in open_.answered else None
        if payment.status != PaymentStatus.AUTHORIZED and open_.waiting and unbooked:
            await _book_hold(session, payment, open_.waiting[-1], unbooked)
        if payment.status == PaymentStatus.AUTHORIZED:
            await ledger.post(session, order_id, LedgerKind.VOID, required_amount(payment))
        for row in await attempts_of(session, order_id):
            if not AttemptState(row.state).is_answered:
                _decline(row, "voided", None)
        if payment.status in (PaymentStatus.AUTHORIZED, PaymentStatus.UNKNOWN):
            _set_status(payment, PaymentStatus.VOIDED)
        return await _as_written(session, payment)


async def note_captured(sessions: Sessions, order_id: UUID, charge_id: str | None) -> Payment:
    """The money is taken: payment and ledger in one transaction. A void that came too late is forgotten.

    Raises Conflict `payment_voided`: the processor closed this payment before, so what it says now cannot be.
    """
    if row := await _first(sessions, TAKE, {"order_id": order_id}):
        return Payment(**row)
    async with sessions.begin() as session:
        payment = await lock(session, order_id)
        if payment.status in (PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
            return payment
        if payment.voided_at is not None:
            raise Conflict("The processor has let go of this payment before.", code="payment_voided")
        if payment.status != PaymentStatus.AUTHORIZED:
            waiting = _unheard(await attempts_of(session, order_id)).waiting
            await _book_hold(session, payment, waiting[-1] if waiting else 1, charge_id)
        await ledger.post(session, order_id, LedgerKind.CAPTURE, required_amount(payment))
        _set_status(payment, PaymentStatus.CAPTURED)
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


# --- parts of the above, for callers that hold a transaction -------------------------------------------------------


async def lock(session: AsyncSession, order_id: UUID) -> Payment:
    """The payment row, made if need be, locked until the transaction ends."""
    statement = select(Payment).where(Payment.order_id == order_id).with_for_update()
    payment = (await session.exec(statement)).first()
    if payment is None:
        connection = await session.connection()
        await connection.execute(insert(Payment).values(order_id=order_id).on_conflict_do_nothing())
        payment = (await session.exec(statement)).one()
    return payment


async def attempts_of(session: AsyncSession, order_id: UUID) -> list[Attempt]:
    """Oldest first."""
    statement = select(Attempt).where(Attempt.order_id == order_id).order_by(col(Attempt.attempt))
    return list((await session.exec(statement)).all())


async def next_number(session: AsyncSession, order_id: UUID, request_key: str, payment_method_id: str) -> int:
    """The attempt's number for a payment request; 1 is the order's first, which needs no row of its own."""
    await lock(session, order_id)
    attempts = await attempts_of(session, order_id)
    for row in attempts:
        if row.request_key == request_key:
            return row.attempt
    number = max([1, *(row.attempt for row in attempts)]) + 1
    await _insert_attempt(session, order_id, number, request_key, payment_method_id)
    return number


def amount_of(payment: Payment) -> Money | None:
    """None: nobody ever asked for money."""
    if payment.amount is None or payment.currency is None:
        return None
    return Money(amount=payment.amount, currency=payment.currency)


def required_amount(payment: Payment) -> Money:
    amount = amount_of(payment)
    if amount is None:
        raise RuntimeError(f"payment of order {payment.order_id} has no amount")
    return amount


async def _book_hold(session: AsyncSession, payment: Payment, attempt: int, charge_id: str | None) -> None:
    """Write an authorization down: `attempt` is the one that holds, all others hold nothing."""
    for row in await attempts_of(session, payment.order_id):
        if row.attempt == attempt:
            row.state, row.decline_code, row.charge_id = AttemptState.AUTHORIZED, None, charge_id
            row.answered_at = NOW
        elif not AttemptState(row.state).is_answered and row.tries > 0:
            _decline(row, "superseded", None)
    _set_status(payment, PaymentStatus.AUTHORIZED)
    await session.flush()
    await ledger.post(session, payment.order_id, LedgerKind.AUTHORIZE, required_amount(payment))


def _unheard(attempts: list[Attempt]) -> Unheard:
    return Unheard(
        waiting=[row.attempt for row in attempts if row.tries > 0 and not AttemptState(row.state).is_answered],
        challenged=[row.attempt for row in attempts if row.state == AttemptState.ACTION_REQUIRED],
        answered={row.charge_id for row in attempts if row.charge_id},
    )


async def _as_written(session: AsyncSession, payment: Payment) -> Payment:
    await session.flush()
    await session.refresh(payment)
    return payment


def _set_status(payment: Payment, status: PaymentStatus) -> None:
    payment.status = status
    payment.updated_at = NOW


async def _insert_attempt(
    session: AsyncSession, order_id: UUID, attempt: int, request_key: str, payment_method_id: str
) -> None:
    statement = insert(Attempt).values(
        order_id=order_id, attempt=attempt, request_key=request_key, payment_method_id=payment_method_id
    )
    await (await session.connection()).execute(statement.on_conflict_do_nothing(index_elements=["order_id", "attempt"]))


def _request_key(attempt: int) -> str:
    return FIRST_REQUEST if attempt == 1 else f"attempt:{attempt}"


def _decline(row: Attempt, code: str, charge_id: str | None) -> None:
    row.state, row.decline_code, row.charge_id = AttemptState.DECLINED, code, charge_id
    row.answered_at = NOW


def _answer(payment: Payment, attempts: list[Attempt], row: Attempt) -> Authorization | None:
    """What is known already: money is held (by whichever attempt), or this card was declined."""
    if payment.status in (PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
        return _authorized(payment, attempts, row.attempt)
    if row.state == AttemptState.DECLINED:
        return Authorization(
            status=PaymentStatus.DECLINED,
            attempt=row.attempt,
            decline_code=row.decline_code,
            intent_id=payment.intent_id,
        )
    return None


def _authorized(payment: Payment, attempts: list[Attempt], asked: int) -> Authorization:
    holding = next((one.attempt for one in attempts if one.state == AttemptState.AUTHORIZED), asked)
    return Authorization(
        status=PaymentStatus.AUTHORIZED, attempt=holding, intent_id=payment.intent_id, amount=amount_of(payment)
    )
