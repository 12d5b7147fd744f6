"""The catalogue: products, categories, and what staff change in it. Lists and search are in services/browsing.py,
stock in services/inventory.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, func, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.catalog import (
    Category,
    CategoryCount,
    Product,
    StockedProduct,
)
from models.errors import Conflict, InvalidRequest, NotFound
from models.messages import PricedProduct
from models.types import Money

COLUMNS = """p.id, p.sku, p.name, p.description, p.category, p.price_amount, p.currency, p.image_url, p.active,
              s.on_hand - s.reserved AS available"""

_GET = text(f"""
    SELECT {COLUMNS} FROM catalog.products p JOIN catalog.stock s ON s.product_id = p.id WHERE p.id = :product_id
""")

_CATEGORIES = text("""
    SELECT c.slug, c.name, coalesce(k.products, 0) AS products
    FROM catalog.categories c LEFT JOIN catalog.product_counts k ON k.category = c.slug
    ORDER BY c.position, c.slug
""")

_ADD_STOCK = text("INSERT INTO catalog.stock (product_id) VALUES (:product_id)")

_PRICED = text("""
    SELECT id, sku, name, price_amount, currency, active FROM catalog.products
    WHERE id = ANY (CAST(:ids AS bigint[]))
""")


async def get(session: AsyncSession, product_id: int, *, also_inactive: bool = False) -> StockedProduct:
    """One product, exact.

    Raises:
        NotFound: no such product, or not for sale (unless `also_inactive`).
    """
    row = (await (await session.connection()).execute(_GET, {"product_id": product_id})).mappings().first()
    if row is None or not (row["active"] or also_inactive):
        raise NotFound("There is no such product.")
    return stocked_product(row)


async def categories(session: AsyncSession) -> list[CategoryCount]:
    """Every category in its order."""
    rows = await (await session.connection()).execute(_CATEGORIES)
    return [CategoryCount(**row) for row in rows.mappings()]


async def create(session: AsyncSession, product: Product) -> StockedProduct:
    """Add a product with a stock of 0.

    Raises:
        InvalidRequest: `unknown_category`.
        Conflict: `sku_taken`.
    """
    await _require_category(session, product.category)
    await _write(session, product)
    await (await session.connection()).execute(_ADD_STOCK, {"product_id": product.id})
    assert product.id is not None
    return await get(session, product.id, also_inactive=True)


async def update(session: AsyncSession, product_id: int, changes: Mapping[str, Any]) -> StockedProduct:
    """Change columns of a product; orders under way keep the name and price they were placed with.

    Raises:
        NotFound: no such product.
        InvalidRequest: `unknown_category`.
        Conflict: `sku_taken`.
    """
    if "category" in changes:
        await _require_category(session, changes["category"])
    product = await session.get(Product, product_id, with_for_update={"key_share": True})
    if product is None:
        raise NotFound("There is no such product.")
    for column, value in {**changes, "updated_at": func.now()}.items():
        setattr(product, column, value)
    await _write(session, product)
    return await get(session, product_id, also_inactive=True)


async def priced(session: AsyncSession, product_ids: Sequence[int]) -> dict[int, PricedProduct]:
    """Names and prices as of now, by product id, also of products no longer for sale; unknown ids are left out."""
    rows = await (await session.connection()).execute(_PRICED, {"ids": list(product_ids)})
    return {
        row.id: PricedProduct(
            product_id=row.id,
            sku=row.sku,
            name=row.name,
            unit_price=Money(amount=row.price_amount, currency=row.currency),
            active=row.active,
        )
        for row in rows
    }


async def _write(session: AsyncSession, product: Product) -> None:
    sku = product.sku  # the object cannot be read once its transaction has failed
    session.add(product)
    try:
        await session.flush()
    except IntegrityError as error:
        if "products_sku_key" not in str(error.orig):
            raise
        raise Conflict(f"Another product has the SKU {sku}.", code="sku_taken") from error


async def _require_category(session: AsyncSession, slug: str) -> None:
    known = (await session.exec(select(Category.slug).where(Category.slug == slug))).first()
    if known is None:
        raise InvalidRequest(f"There is no category {slug}.", code="unknown_category")


def stocked_product(row: RowMapping) -> StockedProduct:
    """A row of COLUMNS."""
    return StockedProduct(
        id=row["id"],
        sku=row["sku"],
        name=row["name"],
        description=row["description"],
        category=row["category"],
        price=Money(amount=row["price_amount"], currency=row["currency"]),
        available=row["available"],
        image_url=row["image_url"],
        active=row["active"],
    )
