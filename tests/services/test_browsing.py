"""Lists, search and suggestions on a catalogue of some thousand products: what they find, and at what cost."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest

from bench.catalogue import bench_products, fill
from bench.search import explain_all
from core.db import make_engine, make_sessions
from core.settings import derived_role_url
from models.catalog import Browse, Sort
from services import browsing, catalog
from tests.warehouse import Warehouse

PRODUCTS = 6000
DEEP = "very common word, page 50"  # a third of so few products: sorting them all is as cheap
SORTS: tuple[Sort, ...] = ("name", "-name", "price", "-price", "newest")


@pytest.fixture(scope="module")
async def role_url(make_database: Callable[[str], str]) -> str:
    owner_url = make_database("browsing")
    await fill(owner_url, PRODUCTS)
    return derived_role_url(owner_url, "mercato_catalog")


@pytest.fixture(scope="module")
async def warehouse(role_url: str) -> AsyncIterator[Warehouse]:
    engine = make_engine(role_url)
    yield Warehouse(make_sessions(engine))
    await engine.dispose()


async def _recounted(warehouse: Warehouse) -> tuple[set[Any], set[Any]]:
    """What is kept and what is true: products by category and word."""
    kept = await warehouse.rows("""
        SELECT category, NULL, products FROM catalog.product_counts WHERE products <> 0
        UNION ALL SELECT category, lexeme, products FROM catalog.word_counts WHERE products <> 0
    """)
    true = await warehouse.rows("""
        SELECT category, NULL, count(*) FROM catalog.products WHERE active GROUP BY category
        UNION ALL
        SELECT category, lexeme, count(*) FROM catalog.products, unnest(tsvector_to_array(search)) AS lexeme
        WHERE active GROUP BY category, lexeme
    """)
    return {tuple(row) for row in kept}, {tuple(row) for row in true}


async def test_kept_counts_follow_every_change(warehouse: Warehouse) -> None:
    word = f"w{uuid4().hex[:10]}"
    first, second = [await warehouse.product(1, name=f"{word} lamp", description="for the night") for _ in range(2)]
    await warehouse.run(catalog.update, first, {"category": "books", "name": f"{word} {word} book"})
    await warehouse.run(catalog.update, second, {"active": False})
    await warehouse.rows("UPDATE catalog.products SET price_amount = price_amount + 1 WHERE name LIKE :w", w=f"{word}%")
    await warehouse.rows(
        "INSERT INTO catalog.products (sku, name, description, category, price_amount, currency)"
        " VALUES (:w, :w, '', 'toys', 1, 'EUR')",
        w=word,
    )
    await warehouse.rows("DELETE FROM catalog.products WHERE sku = :w", w=word)
    kept, true = await _recounted(warehouse)
    assert kept == true
    assert (await warehouse.run(browsing.browse, Browse(search=word))).total == 1
    await warehouse.run(catalog.update, second, {"active": True})
    kept, true = await _recounted(warehouse)
    assert kept == true
    assert (await warehouse.run(browsing.browse, Browse(search=word))).total == 2


@pytest.mark.parametrize(
    "search", ["", "graphite", "two", "graphite sand or two", "two -coffee", '"packaging is"', "BOOK-100000"]
)
async def test_totals_are_exact(warehouse: Warehouse, search: str) -> None:
    for category in (None, "books", "toys"):
        page = await warehouse.run(browsing.browse, Browse(search=search, category=category, page_size=1))
        [(true,)] = await warehouse.rows(
            """
            SELECT count(*) FROM catalog.products WHERE active AND (:c = '' OR category = :c) AND (:s = '' OR
                search @@ (websearch_to_tsquery('english', :s) || websearch_to_tsquery('simple', :s)))
            """,
            s=search,
            c=category or "",
        )
        assert page.total == true


@pytest.fixture
def few_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are listed by name as if they had met very many products."""
    monkeypatch.setattr(browsing, "RANKED", 0)


@pytest.mark.usefixtures("few_ranked")
@pytest.mark.parametrize("sort", [*SORTS, None])
@pytest.mark.parametrize("search", ["", "graphite"])
async def test_pages_tile_the_list_in_order_from_both_ends(
    warehouse: Warehouse, search: str, sort: Sort | None
) -> None:
    seen = []
    total = (await warehouse.run(browsing.browse, Browse(search=search, category="books", page=10_000))).total
    for page in range(1, -(-total // 7) + 1):
        query = Browse(search=search, category="books", sort=sort, page=page, page_size=7)
        seen += (await warehouse.run(browsing.browse, query)).items
    assert len(seen) == len({product.id for product in seen}) == total
    order = {"price": "price_amount, id", "-price": "price_amount DESC, id DESC", "-name": "name DESC, id DESC"}
    true = await warehouse.rows(
        f"""
        SELECT id FROM catalog.products WHERE active AND category = 'books'
        AND (:s = '' OR search @@ plainto_tsquery('english', :s))
        ORDER BY {"created_at DESC, id DESC" if sort == "newest" else order.get(sort or "", "name, id")}
        """,
        s=search,
    )
    assert [product.id for product in seen] == [row.id for row in true]


async def test_a_typing_error_finds_what_the_right_word_does(warehouse: Warehouse) -> None:
    for typed, meant in (("haedphones", "headphones"), ("grafite", "graphite"), ("notebok dotted", "notebook dotted")):
        wrong = await warehouse.run(browsing.browse, Browse(search=typed))
        right = await warehouse.run(browsing.browse, Browse(search=meant))
        assert (wrong.total, wrong.items) == (right.total, right.items)
        assert right.total > 0


@pytest.mark.parametrize("typed", ["h", "he", "hea", "headph", "Headphones", "haedphones", "hedphon"])
async def test_suggestions_know_any_word_of_a_name(warehouse: Warehouse, typed: str) -> None:
    found = [suggestion.name for suggestion in await warehouse.run(browsing.suggest, typed)]
    assert len(found) == len(set(found)) == 8
    wanted = "h" if len(typed) < 3 else "hea" if len(typed) == 3 else "headphones"
    assert all(any(word.startswith(wanted) for word in name.lower().split()) for name in found)


async def test_names_that_begin_with_it_are_suggested_first(warehouse: Warehouse) -> None:
    some = next(bench_products(1)).name
    maker, *rest = some.split()
    found = await warehouse.run(browsing.suggest, f"{maker} {rest[0]}".upper())
    assert found[0].name.startswith(f"{maker} {rest[0]}")
    backwards = await warehouse.run(browsing.suggest, f"{rest[0]} {maker}")
    assert all(maker in each.name and rest[0].lower() in each.name.lower() for each in backwards)
    assert backwards


async def test_nothing_reads_through_the_products_and_each_asks_little(role_url: str) -> None:
    for case in await explain_all(role_url):
        if case.name != DEEP:
            assert not _read_through(case.plans), case.name
        asked = 1 if case.name.startswith("suggest") else 2
        forgiving = "error" in case.name or not case.matches
        assert case.statements <= asked + 2 * forgiving, case.name


def _read_through(plan: Any) -> bool:
    """Whether most of the products were looked at one by one."""
    if isinstance(plan, list):
        return any(_read_through(part) for part in plan)
    if isinstance(plan, dict):
        rows = (plan.get("Actual Rows", 0) + plan.get("Rows Removed by Filter", 0)) * plan.get("Actual Loops", 0)
        through = plan.get("Node Type") == "Seq Scan" and plan.get("Relation Name") == "products"
        return (through and rows > PRODUCTS / 2) or any(_read_through(part) for part in plan.values())
    return False
