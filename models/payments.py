"""Tables of the payments service, schema `payments`."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, func
from sqlmodel import Field, SQLModel

from models.types import PaymentStatus, Service

SCHEMA = {"schema": Service.PAYMENTS.value}


class AttemptState(StrEnum):
    PENDING = "pending"
    AUTHORIZED = "authorized"
    DECLINED = "declined"
    UNKNOWN = "unknown"
    ACTION_REQUIRED = "action_required"  # the card's bank wants to see the shopper first

    @property
    def is_answered(self) -> bool:
        return self in (AttemptState.AUTHORIZED, AttemptState.DECLINED)


class LedgerKind(StrEnum):
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


NOW: Any = func.clock_timestamp()  # what is noted is dated by the database; the row has to be read again to know it


def _timestamp() -> Any:
    return Field(default=None, sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()})


class Payment(SQLModel, table=True):
    """The money of one order: one intent at the processor, one charge at most.

    `void_requested_at` is the tombstone: from then on nobody authorizes or captures. `voided_at` says that the
    processor has closed the intent (or that there never was one); `status` becomes `voided` only if money was held,
    or if nobody could say whether it was.
    """

    __tablename__ = "payments"
    __table_args__ = SCHEMA

    order_id: UUID = Field(primary_key=True)
    intent_id: str | None = None
    amount: int | None = Field(default=None, sa_type=BigInteger)  # minor units; None: never asked for
    currency: str | None = None
    status: str = PaymentStatus.NONE
    void_requested_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    voided_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    created_at: datetime = _timestamp()
    updated_at: datetime = _timestamp()


class Attempt(SQLModel, table=True):
    """One payment request: one card. `tries` counts the confirms sent for it, `confirm_key` is the last one's key."""

    __tablename__ = "attempts"
    __table_args__ = SCHEMA

    order_id: UUID = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    payment_method_id: str
    request_key: str
    state: str = AttemptState.PENDING
    decline_code: str | None = None
    charge_id: str | None = None  # the processor's charge that answered it
    confirm_key: str | None = None
    tries: int = 0
    created_at: datetime = _timestamp()
    answered_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class LedgerTransaction(SQLModel, table=True):
    """Append-only; `key` makes a repeat harmless. Its entries sum to zero (the database checks at commit)."""

    __tablename__ = "ledger_transactions"
    __table_args__ = SCHEMA

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    order_id: UUID
    kind: str
    key: str
    at: datetime = _timestamp()


class LedgerEntry(SQLModel, table=True):
    """Append-only; positive is debit, negative is credit, in minor units."""

    __tablename__ = "ledger_entries"
    __table_args__ = SCHEMA

    txn_id: int = Field(primary_key=True, sa_type=BigInteger)
    account: str = Field(primary_key=True)
    currency: str = Field(primary_key=True)
    amount_minor: int = Field(sa_type=BigInteger)
