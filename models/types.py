"""Words of the trade that every layer shares: states, money, limits. No I/O, no tables."""

import os
import re
import time
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

MAX_LINES = 100
MAX_QUANTITY = 99


class Service(StrEnum):
    """A service owns one PostgreSQL schema of the same name, through a role of its own."""

    USERS = "users"
    CATALOG = "catalog"
    CARTS = "carts"
    ORDERS = "orders"
    PAYMENTS = "payments"
    NOTIFICATIONS = "notifications"


class Role(StrEnum):
    SHOPPER = "shopper"
    SUPPORT = "support"
    ADMIN = "admin"

    @property
    def is_staff(self) -> bool:
        return self is not Role.SHOPPER


class OrderStatus(StrEnum):
    PENDING = "pending"
    ACTION_REQUIRED = "action_required"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_ended(self) -> bool:
        """No order leaves these states any more."""
        return self in (OrderStatus.REJECTED, OrderStatus.EXPIRED, OrderStatus.CANCELLED)


class PaymentStatus(StrEnum):
    NONE = "none"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    DECLINED = "declined"
    UNKNOWN = "unknown"
    VOIDED = "voided"
    REFUNDED = "refunded"


# What we ask the processor to tell us of; services/processor_events.py says what each is good for.
PROCESSOR_EVENTS = (
    *("payment_intent.amount_capturable_updated", "payment_intent.requires_action"),
    *("payment_intent.payment_failed", "payment_intent.canceled", "refund.failed"),
)


class ReservationState(StrEnum):
    ACTIVE = "active"
    COMMITTED = "committed"
    RELEASED = "released"
    RESTOCKED = "restocked"  # sold, and back on the shelf


class EventType(StrEnum):
    """Facts in the customer's event log, past tense."""

    ORDER_PLACED = "order.placed"
    ORDER_RESERVED = "order.reserved"
    PAYMENT_AUTHORIZED = "payment.authorized"
    PAYMENT_DECLINED = "payment.declined"
    ORDER_CONFIRMED = "order.confirmed"
    ORDER_REJECTED = "order.rejected"
    ORDER_EXPIRED = "order.expired"
    ORDER_CANCELLED = "order.cancelled"
    ORDER_CANCEL_REQUESTED = "order.cancel_requested"
    PAYMENT_CAPTURED = "payment.captured"
    PAYMENT_VOIDED = "payment.voided"
    PAYMENT_UNKNOWN = "payment.unknown"
    PAYMENT_ACTION_REQUIRED = "payment.action_required"
    PAYMENT_REFUNDED = "payment.refunded"
    ORDER_NEEDS_ATTENTION = "order.needs_attention"
    ORDER_ATTENTION_CLEARED = "order.attention_cleared"


class Money(BaseModel):
    """An amount in minor units (cents) of an ISO 4217 currency; never a float."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Annotated[int, Field(strict=True, ge=0, le=10**12)]
    currency: Annotated[str, Field(strict=True, pattern="^[A-Z]{3}$")] = "EUR"

    def __add__(self, other: Self) -> Self:
        if other.currency != self.currency:
            raise ValueError(f"cannot add {other.currency} to {self.currency}")
        return self.model_copy(update={"amount": self.amount + other.amount})

    def __mul__(self, quantity: int) -> Self:
        return self.model_copy(update={"amount": self.amount * quantity})

    def __str__(self) -> str:
        return f"{self.amount // 100}.{self.amount % 100:02d} {self.currency}"


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562): milliseconds first, so that new keys land at the end of an index."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def first_uuid7(milliseconds: int) -> UUID:
    """The smallest id that `uuid7` can make in this millisecond since 1970; the nearest there is beyond its range."""
    return UUID(int=max(0, min(milliseconds, (1 << 48) - 1)) << 80)


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def order_number(order_id: UUID) -> str:
    """What a person reads out on the telephone: 50 random bits of the id as `XXXXX-XXXXX`, no I, L, O or U."""
    bits = order_id.int & (1 << 50) - 1
    digits = "".join(_CROCKFORD[bits >> shift & 31] for shift in range(45, -1, -5))
    return f"{digits[:5]}-{digits[5:]}"


_BETWEEN = re.compile("[\\s_.\u00ad\u200b\u2010-\u2015\u2212-]")  # spaces and whatever passes for a dash
_TYPED = re.compile(f"[{_CROCKFORD}]{{4,10}}")
_READ_AS = str.maketrans("OIL", "011")


def normalize_order_number(typed: str) -> str | None:
    """What people type for a number, or for its first 4 characters or more, as it is stored: `#o1l 23-4` is `01123-4`.

    Small letters, spaces, other dashes or none and a leading `#` make no difference; O is 0, I and L are 1.
    None: no order's number begins so.
    """
    digits = _BETWEEN.sub("", typed.strip().removeprefix("#")).upper().translate(_READ_AS)
    if not _TYPED.fullmatch(digits):
        return None
    return f"{digits[:5]}-{digits[5:]}" if len(digits) > 5 else digits
