"""Tables of the users service, schema `users`. Sessions, mails and audit are used by plain SQL only."""

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
