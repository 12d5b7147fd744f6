"""Tables of the catalogue, schema `catalog`, and what the catalogue hands out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, DateTime, func
from sqlmodel import Field, SQLModel

from models.types import Money, Service

SCHEMA = {"schema": Service.CATALOG.value}
MAX_PRICE = 100_000_000  # minor units: a full cart of the dearest product still fits into Money

Sort = Literal["relevance", "name", "-name", "price", "-price", "newest"]


def _timestamp() -> Any:
    return Field(default=None, sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()})


class Category(SQLModel, table=True):
    __tablename__ = "categories"
    __table_args__ = SCHEMA

    slug: str = Field(primary_key=True)
    name: str
    position: int


class Product(SQLModel, table=True):
    """What is sold. The column `search` is PostgreSQL's own business. No `image_url`: the generated picture."""

    __tablename__ = "products"
    __table_args__ = SCHEMA

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    sku: str
    name: str
    description: str
    category: str
    price_amount: int = Field(sa_type=BigInteger)
    currency: str
    image_url: str | None = None
    active: bool = True
    created_at: datetime = _timestamp()
    updated_at: datetime = _timestamp()


@dataclass(frozen=True)
class CategoryCount:
    """A category and how many products are for sale in it."""

    slug: str
    name: str
    products: int


@dataclass(frozen=True)
class StockedProduct:
    """A product with what could be sold of it at this moment."""

    id: int
    sku: str
    name: str
    description: str
    category: str
    price: Money
    available: int
    image_url: str | None
    active: bool


@dataclass(frozen=True)
class StockEvent:
    """`stock.low`, `stock.out` or `stock.back`, with what could be sold then."""

    id: int
    product_id: int
    sku: str
    name: str
    type: str
    available: int
    at: datetime


@dataclass(frozen=True)
class Browse:
    """What to list: `search` forgives typing errors, `page` counts from 1."""

    search: str = ""
    category: str | None = None
    sort: Sort | None = None  # None: by relevance when something is searched for, else by name
    page: int = 1
    page_size: int = 20


@dataclass(frozen=True)
class ProductPage:
    items: list[StockedProduct]
    total: int


@dataclass(frozen=True)
class Suggestion:
    id: int
    name: str
    category: str
    image_url: str | None
