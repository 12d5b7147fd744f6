"""A large catalogue to measure with: the demo's words with makers, finishes and numbers, the same on every machine."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from cli.demo_products import SHELVES, Shelf

MAKERS = tuple(
    first + second
    for first in ("Nord", "Alder", "Brook", "Corvin", "Ember", "Fjell", "Haven", "Kestrel", "Lumen", "Marsh")
    for second in ("mark", "wick", "stad", "ley", "holm", "gard", "ton", "berg")
)
FINISHES = (
    "Sage",
    "Graphite",
    "Ivory",
    "Indigo",
    "Amber",
    "Slate",
    "Coral",
    "Moss",
    "Sand",
    "Midnight",
    "Rust",
    "Pearl",
)
PROMISES = (
    "Delivered in recyclable packaging.",
    "Spare parts are kept for ten years, and the packaging is recyclable.",
    "Designed by {maker} and made in a small series.",
    "Part of the {finish} range.",
)
NUMBERED = 3  # one product in so many bears a number of its own, as electronics and tools do


@dataclass(frozen=True)
class BenchProduct:
    """Price in minor units."""

    sku: str
    name: str
    description: str
    category: str
    price_amount: int
    on_hand: int


def bench_products(total: int) -> Iterator[BenchProduct]:
    """`total` products, spread evenly over the demo's categories and mixed as they would be added over the years."""
    dice = random.Random("mercato:bench")
    for nth in range(total):
        yield _product(SHELVES[nth % len(SHELVES)], nth, dice)


def _product(shelf: Shelf, nth: int, dice: random.Random) -> BenchProduct:
    maker, kind, thing, finish = (dice.choice(words) for words in (MAKERS, shelf.kinds, shelf.things, FINISHES))
    number = f" {dice.choice('ABCDEFHKLMRSTX')}{dice.randint(100, 9999)}" if nth % NUMBERED == 0 else ""
    sentence = shelf.sentence.format(kind=kind.lower())
    promise = dice.choice(PROMISES).format(maker=maker, finish=finish.lower())
    euros = shelf.cheapest + int((shelf.dearest - shelf.cheapest) * dice.random() ** 2)
    return BenchProduct(
        sku=f"{shelf.code}-{100_000 + nth}",
        name=f"{maker} {kind} {thing}{number}, {finish}",
        description=f"{thing}. {sentence[0].upper()}{sentence[1:]} {promise}",
        category=shelf.slug,
        price_amount=euros * 100 + dice.choice((50, 90)),
        on_hand=dice.randint(60, 400),
    )


async def fill(owner_url: str, total: int) -> None:
    """Put `total` products with stock into a migrated, empty catalogue, and let PostgreSQL take stock of its tables,
    as autovacuum would within minutes."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.executemany(
            "INSERT INTO catalog.categories (slug, name, position) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            [(shelf.slug, shelf.name, position) for position, shelf in enumerate(SHELVES)],
        )
        async with connection.transaction():
            await _copy(connection, list(bench_products(total)))
        await connection.execute("VACUUM (ANALYZE) catalog.products")
        await connection.execute("VACUUM (ANALYZE) catalog.stock")
    finally:
        await connection.close()


async def _copy(connection: asyncpg.Connection, products: list[BenchProduct]) -> None:
    first = await connection.fetchval("SELECT coalesce(max(id), 0) + 1 FROM catalog.products")
    await connection.copy_records_to_table(
        "products",
        schema_name="catalog",
        columns=["id", "sku", "name", "description", "category", "price_amount", "currency"],
        records=[
            (first + nth, each.sku, each.name, each.description, each.category, each.price_amount, "EUR")
            for nth, each in enumerate(products)
        ],
    )
    await connection.copy_records_to_table(
        "stock",
        schema_name="catalog",
        columns=["product_id", "on_hand"],
        records=[(first + nth, each.on_hand) for nth, each in enumerate(products)],
    )
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('catalog.products', 'id'), $1)", first + len(products)
    )
