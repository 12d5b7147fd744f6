"""`mercato seed`: the demo catalogue, and outside production the demo users. Safe to run again at any time."""

from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from cli.demo_products import SHELVES, DemoProduct, demo_products
from core.db import make_engine, make_sessions
from core.settings import Settings
from models.types import Role, Service
from services import users

DEMO_PASSWORD = "mercato-demo-pass"
DEMO_USERS = (
    ("shopper@mercato.test", "Sam Shopper", Role.SHOPPER),
    ("support@mercato.test", "Sasha Support", Role.SUPPORT),
    ("admin@mercato.test", "Alex Admin", Role.ADMIN),
)
ACTOR = "seed"

# Held until the transaction ends, so that two seeds at once do not both find an empty catalogue.
_LOCK = text("SELECT pg_advisory_xact_lock(727275)")

# A product may have been renamed, given another SKU or other stock since: the ledger tells that the seed was here.
_SEEDED = text("SELECT EXISTS (SELECT FROM catalog.stock_ledger WHERE actor = :actor)")

_CATEGORIES = text("""
    INSERT INTO catalog.categories (slug, name, position)
    SELECT slug, name, position
    FROM unnest(CAST(:slugs AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS c (slug, name, position)
    ON CONFLICT (slug) DO NOTHING
""")

_PRODUCTS = text("""
    WITH wanted AS (
        SELECT * FROM unnest(
            CAST(:skus AS text[]), CAST(:names AS text[]), CAST(:descriptions AS text[]), CAST(:categories AS text[]),
            CAST(:prices AS bigint[]), CAST(:on_hand AS integer[])
        ) WITH ORDINALITY AS w (sku, name, description, category, price_amount, on_hand, nth)
    ), added AS (
        INSERT INTO catalog.products (sku, name, description, category, price_amount, currency)
        SELECT sku, name, description, category, price_amount, :currency FROM wanted ORDER BY nth
        ON CONFLICT (sku) DO NOTHING
        RETURNING id, sku
    ), stocked AS (
        INSERT INTO catalog.stock (product_id, on_hand)
        SELECT a.id, w.on_hand FROM added a JOIN wanted w USING (sku)
        RETURNING product_id, on_hand
    )
    INSERT INTO catalog.stock_ledger (product_id, kind, on_hand_delta, reserved_delta, actor, reason)
    SELECT product_id, 'receive', on_hand, 0, :actor, 'first delivery' FROM stocked ORDER BY product_id
""")


async def seed(settings: Settings) -> None:
    """Fill an empty shop. What somebody has changed since the first time stays as it is."""
    await _run(settings, Service.CATALOG, _seed_catalogue)
    if settings.environment != "production":
        await _run(settings, Service.USERS, _seed_users)


async def _run(settings: Settings, service: Service, work: Callable[[AsyncSession, Settings], Awaitable[None]]) -> None:
    engine = make_engine(settings.service_database_url(service), application="mercato-seed", pool_size=1)
    try:
        async with make_sessions(engine).begin() as session:
            await work(session, settings)
    finally:
        await engine.dispose()


async def _seed_catalogue(session: AsyncSession, settings: Settings) -> None:
    connection = await session.connection()
    await connection.execute(_LOCK)
    if (await connection.execute(_SEEDED, {"actor": ACTOR})).scalar():
        return
    shelves = {"slugs": [shelf.slug for shelf in SHELVES], "names": [shelf.name for shelf in SHELVES]}
    await connection.execute(_CATEGORIES, shelves)
    await connection.execute(_PRODUCTS, _columns(demo_products()) | {"currency": settings.currency, "actor": ACTOR})


async def _seed_users(session: AsyncSession, _: Settings) -> None:
    for email, full_name, role in DEMO_USERS:
        await users.ensure_user(session, email=email, password=DEMO_PASSWORD, full_name=full_name, role=role)


def _columns(products: list[DemoProduct]) -> dict[str, object]:
    return {
        "skus": [product.sku for product in products],
        "names": [product.name for product in products],
        "descriptions": [product.description for product in products],
        "categories": [product.category for product in products],
        "prices": [product.price_amount for product in products],
        "on_hand": [product.on_hand for product in products],
    }
