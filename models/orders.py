"""Tables of the orders service, schema `orders`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from models.types import OrderStatus, PaymentStatus, Service

SCHEMA = {"schema": Service.ORDERS.value}


def _timestamp(**kwargs: Any) -> Any:
    defaults = {"server_default": func.now()}
    return Field(default=None, sa_type=DateTime(timezone=True), sa_column_kwargs=defaults, **kwargs)


class Order(SQLModel, table=True):
    """The read model of one order; the workflow is its only writer after `place`."""

    __tablename__ = "orders"
    __table_args__ = SCHEMA

    id: UUID = Field(primary_key=True)
    number: str
    customer_id: UUID
    status: str = OrderStatus.PENDING
    payment_status: str = PaymentStatus.NONE
    needs_attention: bool = False
    attention: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    action_required: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    refusal: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    currency: str
    subtotal_amount: int | None = Field(default=None, sa_type=BigInteger)
    shipping_amount: int | None = Field(default=None, sa_type=BigInteger)
    tax_amount: int | None = Field(default=None, sa_type=BigInteger)
    total_amount: int | None = Field(default=None, sa_type=BigInteger)
    shipping_address: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    checkout: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))  # the workflow's input, to start it again
    cancel_requested: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    cancel_reason: str | None = None
    trace_id: str | None = None
    created_at: datetime = _timestamp()
    updated_at: datetime = _timestamp()


class OrderLineRow(SQLModel, table=True):
    __tablename__ = "order_lines"
    __table_args__ = SCHEMA

    order_id: UUID = Field(primary_key=True)
    product_id: int = Field(primary_key=True)
    position: int
    sku: str
    name: str
    quantity: int
    unit_amount: int = Field(sa_type=BigInteger)
    line_amount: int = Field(sa_type=BigInteger)


class CustomerEvent(SQLModel, table=True):
    """Append-only. seq is 1..n for each customer without a hole; (order_id, event_key) makes a repeat harmless."""

    __tablename__ = "customer_event"
    __table_args__ = SCHEMA

    customer_id: UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    order_id: UUID
    event_key: str
    type: str
    data: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))  # the SSE data object, camelCase
    at: datetime = _timestamp()


class AuditEntry(SQLModel, table=True):
    """What a person did to an order: append-only."""

    __tablename__ = "audit"
    __table_args__ = SCHEMA

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    order_id: UUID
    actor: str
    action: str
    reason: str
    at: datetime = _timestamp()
