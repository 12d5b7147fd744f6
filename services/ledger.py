"""The double-entry ledger of payments. Positive is debit, negative is credit, minor units.

| account                | what it holds                                                       |
|------------------------|---------------------------------------------------------------------|
| `customer:authorized`  | money that customers have promised and the processor holds for us   |
| `processor:holds`      | its mirror: what the processor could still be asked for             |
| `processor:receivable` | money captured, which the processor owes us                         |
| `sales`                | what was earned with it                                             |

authorize: debit `customer:authorized`, credit `processor:holds`. void: the reverse. capture: the reverse of the hold,
and debit `processor:receivable`, credit `sales`. refund: the reverse of the sale. A hold never touches sales, so the
sum of `sales` is money that was really taken. Nothing is ever changed; the database refuses a transaction whose
entries do not sum to zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.payments import LedgerEntry, LedgerKind, LedgerTransaction
from models.types import Money

CUSTOMER_AUTHORIZED = "customer:authorized"
PROCESSOR_HOLDS = "processor:holds"
PROCESSOR_RECEIVABLE = "processor:receivable"
SALES = "sales"

# kind -> (account, +1 debit or -1 credit)
POSTINGS: dict[LedgerKind, tuple[tuple[str, int], ...]] = {
    LedgerKind.AUTHORIZE: ((CUSTOMER_AUTHORIZED, +1), (PROCESSOR_HOLDS, -1)),
    LedgerKind.VOID: ((CUSTOMER_AUTHORIZED, -1), (PROCESSOR_HOLDS, +1)),
    LedgerKind.CAPTURE: (
        (CUSTOMER_AUTHORIZED, -1),
        (PROCESSOR_HOLDS, +1),
        (PROCESSOR_RECEIVABLE, +1),
        (SALES, -1),
    ),
    LedgerKind.REFUND: ((PROCESSOR_RECEIVABLE, -1), (SALES, +1)),
}


@dataclass(frozen=True)
class Posted:
    """One ledger transaction with its entries."""

    kind: str
    key: str
    at: datetime
    entries: list[LedgerEntry]


def booking(kind: LedgerKind, payment: str) -> str:
    """The CTEs that book `kind` for what the CTE `payment` holds, at most one row (order_id, amount, currency).

    Once for each order: the key is `{order}:{kind}`, and a repeat books nothing. `booked` holds the transaction's id.
    """
    legs = ", ".join(f"('{account}', {sign})" for account, sign in POSTINGS[kind])
    # chr(58) is the colon, which would begin the name of a parameter
    return f"""booked AS (
        INSERT INTO payments.ledger_transactions (order_id, kind, key)
        SELECT order_id, '{kind}', order_id || chr(58) || '{kind}' FROM {payment}
        ON CONFLICT (key) DO NOTHING RETURNING id
    ), entries AS (
        INSERT INTO payments.ledger_entries (txn_id, account, amount_minor, currency)
        SELECT booked.id, leg.account, leg.sign * p.amount, p.currency
        FROM booked, {payment} p, (VALUES {legs}) AS leg (account, sign)
    )"""


_POST = {
    kind: text(f"""
        WITH payment AS (
            SELECT CAST(:order_id AS uuid) AS order_id, CAST(:amount AS bigint) AS amount, :currency AS currency
        ), {booking(kind, "payment")}
        SELECT id FROM booked
    """)
    for kind in LedgerKind
}


async def post(session: AsyncSession, order_id: UUID, kind: LedgerKind, amount: Money) -> bool:
    """Book `kind` for the order once; False when it was booked before."""
    parameters = {"order_id": order_id, "amount": amount.amount, "currency": amount.currency}
    return (await (await session.connection()).execute(_POST[kind], parameters)).first() is not None


async def of_order(session: AsyncSession, order_id: UUID) -> Sequence[Posted]:
    """The order's transactions, oldest first."""
    transactions = (
        await session.exec(
            select(LedgerTransaction).where(LedgerTransaction.order_id == order_id).order_by(col(LedgerTransaction.id))
        )
    ).all()
    ids = [transaction.id for transaction in transactions]
    entries = (
        await session.exec(
            select(LedgerEntry)
            .where(col(LedgerEntry.txn_id).in_(ids))
            .order_by(col(LedgerEntry.txn_id), col(LedgerEntry.account))
        )
    ).all()
    return [
        Posted(
            kind=transaction.kind,
            key=transaction.key,
            at=transaction.at,
            entries=[entry for entry in entries if entry.txn_id == transaction.id],
        )
        for transaction in transactions
    ]
