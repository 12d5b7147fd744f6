"""Tables of the notifications service, schema `notifications`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from models.types import Service


class Message(SQLModel, table=True):
    """What a customer is to be told, once for each (order, kind, channel)."""

    __tablename__ = "messages"
    __table_args__ = {"schema": Service.NOTIFICATIONS.value}

    id: UUID = Field(primary_key=True)  # version 7, so that ids follow time
    order_id: UUID
    customer_id: UUID
    kind: str
    channel: str
    data: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    state: str = "queued"
    created_at: datetime = Field(
        default=None, sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()}
    )
