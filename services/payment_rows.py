"""Payments and their attempts as rows: what payment_records.py does, step by step, in a transaction of its own."""

from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import Conflict
from models.messages import Authorization
from models.payments import NOW, Attempt, AttemptState, LedgerKind, Payment
from models.types import Money, PaymentStatus
from services import ledger

FIRST_REQUEST = "place"


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
    """The attempt's number for a payment request; 1 is the order's first, which needs no row of its own.

    Raises Conflict `payment_voided`: a new card comes too late.
    """
    payment = await lock(session, order_id)
    attempts = await attempts_of(session, order_id)
    for row in attempts:
        if row.request_key == request_key:
            return row.attempt
    if payment.void_requested_at is not None:
        raise Conflict("This payment has been voided.", code="payment_voided")
    number = max([1, *(row.attempt for row in attempts)]) + 1
    await insert_attempt(session, order_id, number, request_key, payment_method_id)
    return number


def amount_of(payment: Payment) -> Money | None:
    """None: nobody ever asked for money."""
    if payment.amount is None or payment.currency is None:
        return None
    return Money(amount=payment.amount, currency=payment.currency)


def required_amount(payment: Payment) -> Money:
    """As `amount_of`, for a payment that money was asked for. Raises RuntimeError if none was."""
    amount = amount_of(payment)
    if amount is None:
        raise RuntimeError(f"payment of order {payment.order_id} has no amount")
    return amount


async def book_hold(session: AsyncSession, payment: Payment, attempt: int, charge_id: str | None) -> None:
    """Write an authorization down: `attempt` is the one that holds, all others hold nothing."""
    for row in await attempts_of(session, payment.order_id):
        if row.attempt == attempt:
            row.state, row.decline_code, row.charge_id = AttemptState.AUTHORIZED, None, charge_id
            row.answered_at = NOW
        elif not AttemptState(row.state).is_answered and row.tries > 0:
            decline(row, "superseded", None)
    set_status(payment, PaymentStatus.AUTHORIZED)
    await session.flush()
    await ledger.post(session, payment.order_id, LedgerKind.AUTHORIZE, required_amount(payment))


async def as_written(session: AsyncSession, payment: Payment) -> Payment:
    """The row with the values that the database gave it."""
    await session.flush()
    await session.refresh(payment)
    return payment


def set_status(payment: Payment, status: PaymentStatus) -> None:
    """Where the money stands from now on."""
    payment.status = status
    payment.updated_at = NOW


async def insert_attempt(
    session: AsyncSession, order_id: UUID, attempt: int, request_key: str, payment_method_id: str
) -> None:
    """Write an attempt down, unless it is there already."""
    statement = insert(Attempt).values(
        order_id=order_id, attempt=attempt, request_key=request_key, payment_method_id=payment_method_id
    )
    await (await session.connection()).execute(statement.on_conflict_do_nothing(index_elements=["order_id", "attempt"]))


def request_key_of(attempt: int) -> str:
    """The payment request that brought the card of this attempt."""
    return FIRST_REQUEST if attempt == 1 else f"attempt:{attempt}"


def decline(row: Attempt, code: str, charge_id: str | None) -> None:
    """This card holds nothing, for certain."""
    row.state, row.decline_code, row.charge_id = AttemptState.DECLINED, code, charge_id
    row.answered_at = NOW


def known_answer(payment: Payment, attempts: list[Attempt], row: Attempt) -> Authorization | None:
    """What is known already: money is held (by whichever attempt), or this card was declined."""
    if payment.status in (PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
        return authorized(payment, attempts, row.attempt)
    if row.state == AttemptState.DECLINED:
        return Authorization(
            status=PaymentStatus.DECLINED,
            attempt=row.attempt,
            decline_code=row.decline_code,
            intent_id=payment.intent_id,
        )
    return None


def authorized(payment: Payment, attempts: list[Attempt], asked: int) -> Authorization:
    holding = next((one.attempt for one in attempts if one.state == AttemptState.AUTHORIZED), asked)
    return Authorization(
        status=PaymentStatus.AUTHORIZED, attempt=holding, intent_id=payment.intent_id, amount=amount_of(payment)
    )
