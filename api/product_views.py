"""Products as JSON, both ways."""

import zlib
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from api.shapes import GivenMoney, RequestModel, ResponseModel
from models.catalog import MAX_PRICE, Browse, CategoryCount, Sort, StockedProduct, Suggestion
from models.types import Money

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
PRINTABLE_LINES = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"


def _sellable(price: Money) -> Money:
    if not 1 <= price.amount <= MAX_PRICE:
        raise ValueError(f"a price is between 1 and {MAX_PRICE} minor units")
    return price


Sku = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["BOOK-1001"])]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PRINTABLE)]
Description = Annotated[str, Field(max_length=5000, pattern=PRINTABLE_LINES)]
Slug = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9-]+$", examples=["books"])]
Price = Annotated[GivenMoney, AfterValidator(_sellable)]
ImageUrl = Annotated[str, Field(max_length=500, pattern=r"^(https?:/)?/[^\s\x00-\x20\"'<>\\]+$")]
SearchText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=PRINTABLE)]


class ListQuery(BaseModel):
    """`search` forgives typing errors when no product has the words as they were typed."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    search: SearchText = ""
    category: Slug | None = None
    sort: Sort | None = Field(default=None, description="default: relevance with a search, else name")
    page: int = Field(default=1, ge=1, le=10_000)
    page_size: int = Field(default=20, ge=1, le=100)

    def as_browse(self) -> Browse:
        return Browse(self.search, self.category, self.sort, self.page, self.page_size)


class NewProduct(RequestModel):
    """A new product starts with a stock of 0. Without `imageUrl` it gets a picture made for it."""

    sku: Sku
    name: Name
    description: Description = ""
    category: Slug
    price: Price
    image_url: ImageUrl | None = None


class ProductChanges(RequestModel):
    """Only what is sent is changed; the defaults here are never used. `imageUrl: null` is the made picture again."""

    sku: Sku = ""
    name: Name = ""
    description: Description = ""
    category: Slug = ""
    price: Price = Money(amount=1)
    image_url: ImageUrl | None = None
    active: bool = True


class StockLevel(RequestModel):
    """What is on the shelf, reserved units included; `lowAt`: with so few to sell, staff are to be told."""

    on_hand: Annotated[int, Field(ge=0, le=1_000_000_000)]
    low_at: Annotated[int | None, Field(ge=0, le=1_000_000_000)] = None
    reason: Annotated[str, Field(max_length=200, pattern=PRINTABLE)] = ""


class StockEventView(ResponseModel):
    """`available` units could be sold then."""

    id: int
    product_id: int
    sku: str
    name: str
    type: str
    available: int
    at: datetime


class StockEventPage(ResponseModel):
    items: list[StockEventView]
    next_cursor: int | None


class PricedQuery(RequestModel):
    product_ids: Annotated[list[int], Field(max_length=1000)]


class ProductView(ResponseModel):
    """`available`: on hand and not reserved."""

    id: int
    sku: str
    name: str
    description: str
    category: str
    price: Money
    available: int
    image_url: str
    active: bool

    @classmethod
    def of(cls, product: StockedProduct) -> "ProductView":
        return cls(
            id=product.id,
            sku=product.sku,
            name=product.name,
            description=product.description,
            category=product.category,
            price=product.price,
            available=product.available,
            image_url=product.image_url or picture_url(product.id, product.name, product.category),
            active=product.active,
        )


class ProductList(ResponseModel):
    items: list[ProductView]
    page: int
    page_size: int
    total: int


class SuggestionView(ResponseModel):
    id: int
    name: str
    category: str
    image_url: str

    @classmethod
    def of(cls, found: Suggestion) -> "SuggestionView":
        image_url = found.image_url or picture_url(found.id, found.name, found.category)
        return cls(id=found.id, name=found.name, category=found.category, image_url=image_url)


class SuggestionList(ResponseModel):
    items: list[SuggestionView]


class CategoryView(ResponseModel):
    """`products`: how many are for sale."""

    slug: str
    name: str
    products: int

    @classmethod
    def of(cls, category: CategoryCount) -> "CategoryView":
        return cls(slug=category.slug, name=category.name, products=category.products)


class CategoryList(ResponseModel):
    items: list[CategoryView]


def picture_url(product_id: int, name: str, category: str) -> str:
    """Where the made picture is; `v` changes with what it shows, so that it can be cached for ever."""
    version = zlib.crc32(f"{name}\n{category}".encode())
    return f"/api/products/{product_id}/image.svg?v={version:08x}"
