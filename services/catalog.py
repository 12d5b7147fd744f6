"""The catalogue: products, categories, search, and what staff change in it. Stock is in services/inventory.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, func, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.catalog import (
    Browse,
    Category,
    CategoryCount,
    Product,
    ProductPage,
    StockedProduct,
    Suggestion,
)
from models.errors import Conflict, InvalidRequest, NotFound
from models.messages import PricedProduct
from models.types import Money

TYPING_ERROR_THRESHOLD = "0.42"  # share of a word's trigrams that must be met; pg_trgm's own 0.6 misses swapped letters

_COLUMNS = """p.id, p.sku, p.name, p.description, p.category, p.price_amount, p.currency, p.image_url, p.active,
              s.on_hand - s.reserved AS available"""

_GET = text(f"""
    SELECT {_COLUMNS} FROM catalog.products p JOIN catalog.stock s ON s.product_id = p.id WHERE p.id = :product_id
""")

_EVERYTHING, _WORDS, _ALIKE = (
    "true",
    "p.search @@ (websearch_to_tsquery('english', :search) || websearch_to_tsquery('simple', :search))",
    ":search OPERATOR(catalog.<%) p.name",
)
_RELEVANCE = {
    _EVERYTHING: "p.name",
    _WORDS: "ts_rank(p.search, websearch_to_tsquery('english', :search)) DESC",
    _ALIKE: "catalog.word_similarity(:search, p.name) DESC",
}
_ORDERS = {
    "name": "p.name",
    "-name": "p.name DESC",
    "price": "p.price_amount",
    "-price": "p.price_amount DESC",
    "newest": "p.created_at DESC, p.id DESC",
}

_FORGIVE = text(f"SELECT set_config('pg_trgm.word_similarity_threshold', '{TYPING_ERROR_THRESHOLD}', true)")

_SUGGEST = text("""
    SELECT id, name, category, image_url FROM catalog.products
    WHERE active AND (name ILIKE :prefix OR :search OPERATOR(catalog.<%) name)
    ORDER BY name ILIKE :prefix DESC, catalog.word_similarity(:search, name) DESC, length(name), id LIMIT :limit
""")

_CATEGORIES = text("""
    SELECT c.slug, c.name, count(p.id) AS products
    FROM catalog.categories c LEFT JOIN catalog.products p ON p.category = c.slug AND p.active
    GROUP BY c.slug ORDER BY c.position, c.slug
""")

_ADD_STOCK = text("INSERT INTO catalog.stock (product_id) VALUES (:product_id)")

_PRICED = text("""
    SELECT id, sku, name, price_amount, currency, active FROM catalog.products
    WHERE id = ANY (CAST(:ids AS bigint[]))
""")


async def browse(session: AsyncSession, query: Browse) -> ProductPage:
    """One page of what is for sale. Whole words go first; only when none is met are typing errors forgiven.

    Raises:
        InvalidRequest: `unknown_category`.
    """
    if query.category is not None:
        await _require_category(session, query.category)
    if not query.search:
        return await _page(session, query, _EVERYTHING)
    found = await _page(session, query, _WORDS)
    if found.total:
        return found
    await (await session.connection()).execute(_FORGIVE)
    return await _page(session, query, _ALIKE)


async def get(session: AsyncSession, product_id: int, *, also_inactive: bool = False) -> StockedProduct:
    """One product, exact.

    Raises:
        NotFound: no such product, or not for sale (unless `also_inactive`).
    """
    row = (await (await session.connection()).execute(_GET, {"product_id": product_id})).mappings().first()
    if row is None or not (row["active"] or also_inactive):
        raise NotFound("There is no such product.")
    return _product(row)


async def suggest(session: AsyncSession, search: str, limit: int = 8) -> list[Suggestion]:
    """Products whose names begin with, or look like, what has been typed so far."""
    connection = await session.connection()
    await connection.execute(_FORGIVE)
    prefix = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = await connection.execute(_SUGGEST, {"search": search, "prefix": prefix, "limit": limit})
    return [Suggestion(**row) for row in rows.mappings()]


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


async def _page(session: AsyncSession, query: Browse, matching: str) -> ProductPage:
    """`matching` and the order are constants of this module; what shoppers send goes in as parameters only."""
    where = f"p.active AND {matching}" + (" AND p.category = :category" if query.category else "")
    order = _ORDERS.get(query.sort or "relevance", _RELEVANCE[matching])
    wanted = {"search": query.search, "category": query.category}
    parameters = {name: value for name, value in wanted.items() if f":{name}" in where + order}
    connection = await session.connection()
    total = (
        await connection.execute(text(f"SELECT count(*) FROM catalog.products p WHERE {where}"), parameters)
    ).scalar()
    rows = await connection.execute(
        text(f"""
            SELECT {_COLUMNS} FROM catalog.products p JOIN catalog.stock s ON s.product_id = p.id
            WHERE {where} ORDER BY {order}, p.id LIMIT :limit OFFSET :offset
        """),
        {**parameters, "limit": query.page_size, "offset": (query.page - 1) * query.page_size},
    )
    return ProductPage(items=[_product(row) for row in rows.mappings()], total=total or 0)


def _product(row: RowMapping) -> StockedProduct:
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
