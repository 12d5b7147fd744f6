"""Tables of the users service, schema `users`. Sessions and audit are written by plain SQL only."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, Column, Computed, DateTime, func
from sqlmodel import Field, SQLModel

from models.types import Role, Service

SCHEMA = {"schema": Service.USERS.value}


class User(SQLModel, table=True):
    """An account, in the form that fastapi-users asks for. `email` is unique whatever its case."""

    __tablename__ = "users"
    __table_args__ = SCHEMA

    id: UUID = Field(primary_key=True)
    email: str
    full_name: str
    hashed_password: str
    role: str = Role.SHOPPER
    is_active: bool = True
    is_verified: bool = False
    is_superuser: bool = Field(sa_column=Column(Boolean, Computed("role = 'admin'"), nullable=False))
    created_at: datetime = Field(sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()})


class Mail(SQLModel, table=True):
    """A mail to be sent. It holds no token: that is made when the mail is written, so none lies in the database."""

    __tablename__ = "mails"
    __table_args__ = SCHEMA

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    user_id: UUID
    address: str
