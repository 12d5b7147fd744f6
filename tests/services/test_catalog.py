"""Search, lists and changes of the catalogue on the real PostgreSQL."""

from collections.abc import AsyncIterator
from uuid import uuid4
from xml.etree import ElementTree

import pytest

from core.db import make_engine, make_sessions
from core.settings import derived_role_url
from models.catalog import Browse, Product, Sort
from models.errors import Conflict, InvalidRequest, NotFound
from models.types import Money
from services import browsing, catalog, inventory
from services.pictures import product_picture
from tests.warehouse import Warehouse


@pytest.fixture(scope="module")
async def warehouse(database_url: str) -> AsyncIterator[Warehouse]:
    engine = make_engine(derived_role_url(database_url, "mercato_catalog"))
    yield Warehouse(make_sessions(engine))
    await engine.dispose()


@pytest.fixture(scope="module")
async def shelf(warehouse: Warehouse) -> str:
    """A category of this module's own with three products."""
    slug = f"s-{uuid4().hex[:12]}"
    await warehouse.rows("INSERT INTO catalog.categories VALUES (:s, 'Shelf', 100)", s=slug)
    for name, price, description in (
        ("Wireless Headphones", 9900, "Thirty hours on one charge"),
        ("Mechanical Keyboard", 12900, "For those who write all day"),
        ("Paper Lantern", 1500, "Folds flat; charge it with a candle"),
    ):
        await warehouse.product(3, name=name, price_amount=price, description=description, category=slug)
    return slug


async def _names(warehouse: Warehouse, query: Browse) -> list[str]:
    return [product.name for product in (await warehouse.run(browsing.browse, query)).items]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("headphones", "Wireless Headphones"),
        ("headphone wireless", "Wireless Headphones"),
        ("haedphones", "Wireless Headphones"),
        ("wireles hedphones", "Wireless Headphones"),
        ("keybord", "Mechanical Keyboard"),
        ("mechnical", "Mechanical Keyboard"),
        ("latern", "Paper Lantern"),
        ("writing", "Mechanical Keyboard"),
    ],
)
async def test_search_finds_it_typing_errors_or_not(warehouse: Warehouse, shelf: str, typed: str, found: str) -> None:
    assert (await _names(warehouse, Browse(search=typed, category=shelf)))[:1] == [found]


async def test_a_word_in_the_name_counts_for_more_than_one_in_the_description(warehouse: Warehouse, shelf: str) -> None:
    await warehouse.product(1, name="Charge Cable", category=shelf)
    names = await _names(warehouse, Browse(search="charge", category=shelf))
    assert names[0] == "Charge Cable"
    assert set(names[1:]) == {"Wireless Headphones", "Paper Lantern"}


@pytest.mark.parametrize(
    "typed", ["' OR 1=1 --", "%%%", "\\", "a & | ! b", '"', "((((", "-", "x" * 200, "日本語", "zzqqxx"]
)
async def test_odd_searches_find_nothing_and_break_nothing(warehouse: Warehouse, shelf: str, typed: str) -> None:
    assert await _names(warehouse, Browse(search=typed, category=shelf)) == []
    await warehouse.run(browsing.suggest, typed)


async def test_a_sku_is_found_as_it_is(warehouse: Warehouse) -> None:
    sku = f"QX-{uuid4().hex[:8]}"
    product = await warehouse.product(0)
    await warehouse.run(catalog.update, product, {"sku": sku})
    page = await warehouse.run(browsing.browse, Browse(search=sku))
    assert [found.id for found in page.items] == [product]


@pytest.mark.parametrize(
    ("sort", "first"),
    [("name", "A"), ("-name", "C"), ("price", "C"), ("-price", "A"), ("newest", "B"), ("relevance", "A"), (None, "A")],
)
async def test_lists_are_sorted(warehouse: Warehouse, sort: Sort | None, first: str) -> None:
    slug = f"s-{uuid4().hex[:12]}"
    await warehouse.rows("INSERT INTO catalog.categories VALUES (:s, 'Sorted', 100)", s=slug)
    for name, price in (("C", 100), ("A", 300), ("B", 200)):
        await warehouse.product(1, name=name, price_amount=price, category=slug)
    assert (await _names(warehouse, Browse(category=slug, sort=sort)))[0] == first


async def test_pages_tile_the_list_without_overlap(warehouse: Warehouse) -> None:
    slug = f"s-{uuid4().hex[:12]}"
    await warehouse.rows("INSERT INTO catalog.categories VALUES (:s, 'Pages', 100)", s=slug)
    ids = {await warehouse.product(1, name="Same name", category=slug) for _ in range(7)}
    pages = [
        await warehouse.run(browsing.browse, Browse(category=slug, page=page, page_size=3)) for page in range(1, 5)
    ]
    assert [len(page.items) for page in pages] == [3, 3, 1, 0]
    assert {page.total for page in pages} == {7}
    assert {product.id for page in pages for product in page.items} == ids


async def test_an_unknown_category_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await warehouse.run(browsing.browse, Browse(category="no-such"))
    assert refused.value.code == "unknown_category"


async def test_what_is_not_for_sale_is_in_no_list_and_counted_nowhere(warehouse: Warehouse) -> None:
    slug = f"s-{uuid4().hex[:12]}"
    await warehouse.rows("INSERT INTO catalog.categories VALUES (:s, 'Gone', 100)", s=slug)
    product = await warehouse.product(1, name="Vanishing Cabinet", category=slug)
    await warehouse.run(catalog.update, product, {"active": False})
    assert await _names(warehouse, Browse(category=slug)) == []
    assert await _names(warehouse, Browse(category=slug, search="cabinet")) == []
    assert product not in [found.id for found in await warehouse.run(browsing.suggest, "vanishing cab")]
    assert {found.slug: found.products for found in await warehouse.run(catalog.categories)}[slug] == 0
    with pytest.raises(NotFound):
        await warehouse.run(catalog.get, product)
    assert not (await warehouse.run(catalog.priced, [product]))[product].active


async def test_suggestions_begin_with_what_is_typed(warehouse: Warehouse) -> None:
    await warehouse.product(1, name="Zanzibar Drum")
    await warehouse.product(1, name="Drum from Zanzibar")
    found = await warehouse.run(browsing.suggest, "zanz")
    assert [suggestion.name for suggestion in found] == ["Zanzibar Drum", "Drum from Zanzibar"]


async def test_available_is_what_nobody_holds(warehouse: Warehouse) -> None:
    product = await warehouse.product(5)
    await warehouse.run(inventory.reserve, uuid4(), {product: 2}, 600)
    assert (await warehouse.run(catalog.get, product)).available == 3


async def test_prices_of_known_products_only(warehouse: Warehouse) -> None:
    product = await warehouse.product(0, price_amount=499)
    prices = await warehouse.run(catalog.priced, [product, 2**50])
    assert list(prices) == [product]
    assert prices[product].unit_price == Money(amount=499)


async def test_a_sku_is_given_once(warehouse: Warehouse) -> None:
    first, second = await warehouse.product(0), await warehouse.product(0)
    sku = (await warehouse.run(catalog.get, first)).sku
    with pytest.raises(Conflict) as refused:
        await warehouse.run(catalog.update, second, {"sku": sku})
    assert refused.value.code == "sku_taken"
    with pytest.raises(InvalidRequest):
        await warehouse.run(catalog.update, second, {"category": "no-such"})
    with pytest.raises(NotFound):
        await warehouse.run(catalog.update, 2**40, {"name": "x"})
    product = Product(sku=sku, name="x", description="", category="warehouse", price_amount=1, currency="EUR")
    with pytest.raises(Conflict):
        await warehouse.run(catalog.create, product)


def test_a_picture_is_the_same_every_time_and_holds_nothing_that_runs() -> None:
    name = '<script>alert(1)</script> & "Co" <x'
    drawn = product_picture(7, name, "books")
    assert drawn == product_picture(7, name, "books")
    assert drawn != product_picture(8, name, "books")
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == name
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "defs", "linearGradient", "stop", "rect", "circle", "path", "polygon", "text"}
