"""Lists are made once a second and given again without a route: what must be the same, and what it may cost."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import event

from api import recent
from api.etags import Rendered
from core.settings import Settings
from models.types import Service
from tests.api.shop import Shop, new_product, open_shop

OWN_TO_EACH = ("x-request-id", "x-trace-id", "date")
READS = ["/api/products", "/api/products?search=kettle&sort=price", "/api/products/suggest?q=ket", "/api/categories"]


@pytest.fixture(scope="module")
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with open_shop(settings) as opened:
        yield opened


@pytest.fixture
async def guest(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.guest() as client:
        yield client


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing becomes too old while a test runs."""
    monkeypatch.setattr("api.catalog.LIST_SECONDS", 3600.0)


@contextmanager
def statements(shop: Shop) -> Iterator[list[str]]:
    """What the catalogue's engine is asked meanwhile."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    engine = shop.resources.sessions[Service.CATALOG].engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _never_asked(path: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}utm={uuid4()}"


@pytest.mark.usefixtures("for_ever")
@pytest.mark.parametrize("path", READS)
async def test_the_second_answer_is_the_first_without_the_route(
    shop: Shop, guest: httpx.AsyncClient, path: str
) -> None:
    url = _never_asked(path)
    first = await guest.get(url)
    with statements(shop) as asked:
        second = await guest.get(url, headers={"x-request-id": "mine"})
        third = await guest.get(url, headers={"If-None-Match": first.headers["ETag"]})
        other = await guest.get(url, headers={"If-None-Match": '"other"'})
    assert asked == []
    assert first.content == second.content == other.content
    assert (first.status_code, second.status_code, third.status_code, third.content) == (200, 200, 304, b"")
    for answer in (second, other):
        same, now = dict(first.headers), dict(answer.headers)
        ids = [now.pop(name, None) for name in OWN_TO_EACH]
        assert now == {name: value for name, value in same.items() if name not in OWN_TO_EACH}
        assert ids[1] != same["x-trace-id"]
    assert second.headers["x-request-id"] == "mine"
    assert third.headers["ETag"] == first.headers["ETag"]
    assert third.headers["content-security-policy"] == first.headers["content-security-policy"]


@pytest.mark.usefixtures("for_ever")
async def test_what_is_given_again_is_counted_under_its_route(
    guest: httpx.AsyncClient,
) -> None:
    def counted() -> float:
        labels = {"method": "GET", "route": "/api/products", "status": "200"}
        return REGISTRY.get_sample_value("http_requests_total", labels) or 0

    before, url = counted(), _never_asked("/api/products")
    for _ in range(3):
        await guest.get(url)
    assert counted() == before + 3


@pytest.mark.usefixtures("for_ever")
async def test_other_questions_have_other_answers(guest: httpx.AsyncClient) -> None:
    for size in (1, 2, 1, 2):
        assert (await guest.get(f"/api/products?pageSize={size}&utm=other")).json()["pageSize"] == size
    assert (await guest.get("/api/products/suggest?q=ke")).json() != (await guest.get("/api/products?q=ke")).json()
    assert (await guest.post("/api/categories", json={})).status_code == 405


@pytest.mark.usefixtures("for_ever")
async def test_a_refusal_is_never_given_again(shop: Shop, guest: httpx.AsyncClient) -> None:
    slug = "made-meanwhile"
    assert (await guest.get(f"/api/products?category={slug}")).status_code == 422
    await shop.warehouse.rows("INSERT INTO catalog.categories VALUES (:s, 'Meanwhile', 100)", s=slug)
    assert (await guest.get(f"/api/products?category={slug}")).status_code == 200


@pytest.mark.usefixtures("for_ever")
async def test_what_is_too_large_is_refused_for_a_kept_answer_too(guest: httpx.AsyncClient) -> None:
    assert (await guest.get("/api/categories?utm=large")).status_code == 200
    assert (await guest.get("/api/categories?utm=large", headers={"x-long": "x" * 100_000})).status_code == 431
    body = await guest.request("GET", "/api/categories?utm=large", content=b"x" * 300_000)
    assert body.status_code == 413


def test_strangers_cannot_fill_the_memory() -> None:
    answers = recent.RecentAnswers([])

    def asked(query: bytes) -> dict[str, Any]:
        return {"method": "GET", "path": "/", "query_string": query, "route": SimpleNamespace(path="/")}

    kept = {recent.KEPT: recent.Kept(Rendered(b"{}", 'W/"1"'), until=float("inf"))}
    for nth in range(recent.MOST_ANSWERS + 10):
        answers.learn(asked(b"%d" % nth) | kept)
    answers.learn(asked(b"x" * 1000) | kept)
    assert len(answers) == recent.MOST_ANSWERS
    assert answers.find(asked(b"0")) is None
    assert answers.find(asked(b"x" * 1000)) is None
    assert answers.find(asked(b"%d" % recent.MOST_ANSWERS)) is not None


async def test_how_many_statements_a_read_takes(shop: Shop, guest: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(1, name="Quicksilver Barometer")
    for path, most in (
        ("/api/products?pageSize=7", 2),
        ("/api/products?pageSize=7&category=warehouse", 2),
        ("/api/products?search=quicksilver", 2),
        ("/api/products?search=quicksliver", 4),
        ("/api/products/suggest?q=quicks", 1),
        ("/api/categories?utm=cost", 1),
        (f"/api/products/{product}", 1),
    ):
        with statements(shop) as asked:
            answer = await guest.get(path)
        assert answer.status_code == 200
        assert len(asked) <= most, path
        assert "Quicksilver" in answer.text or "search" not in path


async def test_reads_are_no_transactions(shop: Shop, guest: httpx.AsyncClient, database_url: str) -> None:
    product = await shop.warehouse.product(1)
    owner = await asyncpg.connect(database_url)
    await owner.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    async def calls() -> Counter[str]:
        return Counter(
            dict(
                await owner.fetch(
                    """
                    SELECT query, sum(calls)::int FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
                    WHERE datname = current_database() AND userid = 'mercato_catalog'::regrole GROUP BY query
                    """
                )
            )
        )

    before = await calls()
    for path in (f"/api/products/{product}", "/api/products?pageSize=9", "/api/products/suggest?q=untransacted"):
        assert (await guest.get(path)).status_code == 200
    made = await calls() - before
    await owner.close()
    assert sum(count for query, count in made.items() if "catalog." in query) == 4
    assert "COMMIT" not in made
    assert made["BEGIN"] == 0


async def test_one_product_is_never_kept(shop: Shop, guest: httpx.AsyncClient) -> None:
    async with shop.staff() as staff:
        product = (await staff.post("/api/products", json=new_product())).json()
        url = f"/api/products/{product['id']}"
        for level in (3, 5, 2):
            await staff.put(f"{url}/stock", json={"onHand": level})
            assert (await guest.get(url)).json()["available"] == level
