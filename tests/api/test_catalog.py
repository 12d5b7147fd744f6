"""The catalogue over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from core.settings import Settings
from services import inventory
from tests.api.accounts import until
from tests.api.shop import Shop, new_product, open_shop


@pytest.fixture(scope="module")
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with open_shop(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
async def staff(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.staff() as client:
        yield client


@pytest.fixture
async def guest(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.guest() as client:
        yield client


async def test_staff_add_a_product_that_shoppers_then_see(staff: httpx.AsyncClient, guest: httpx.AsyncClient) -> None:
    body = new_product(name=f"Sextant {uuid4().hex[:8]}")
    made = await staff.post("/api/products", json=body)
    assert made.status_code == 201
    product = made.json()
    assert made.headers["Location"] == f"/api/products/{product['id']}"
    picture = product.pop("imageUrl")
    assert product == body | {"id": product["id"], "available": 0, "active": True}
    assert (await guest.get(made.headers["Location"])).json() == product | {"imageUrl": picture}
    listed = (await guest.get("/api/products", params={"search": body["name"]})).json()
    assert [item["id"] for item in listed["items"]] == [product["id"]]
    assert (listed["page"], listed["pageSize"], listed["total"]) == (1, 20, 1)


async def test_the_made_picture_may_be_kept_for_ever_and_runs_nothing(shop: Shop, guest: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(1, name="Copper Kettle")
    url = (await guest.get(f"/api/products/{product}")).json()["imageUrl"]
    drawn = await guest.get(url)
    assert drawn.status_code == 200
    assert drawn.headers["Content-Type"].startswith("image/svg+xml")
    assert "immutable" in drawn.headers["Cache-Control"]
    assert drawn.headers["Content-Security-Policy"] == "default-src 'none'"
    assert ">CK</text>" in drawn.text


@pytest.mark.parametrize(
    "path", ["", "?search=kettle", "?category=warehouse&sort=-price&page=1&pageSize=3", "/suggest?q=ket", "/{product}"]
)
async def test_reads_carry_a_weak_etag_that_answers_304(shop: Shop, guest: httpx.AsyncClient, path: str) -> None:
    url = "/api/products" + path.replace("{product}", str(await shop.warehouse.product(1)))
    # other tests add products meanwhile or not: within a second the list is the same
    first = await guest.get(url)
    assert first.status_code == 200
    assert first.headers["ETag"].startswith('W/"')
    again = await guest.get(url, headers={"If-None-Match": f'"other", {first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (await guest.get(url, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_list_is_old_for_a_second_at_most_and_one_product_never(
    staff: httpx.AsyncClient, guest: httpx.AsyncClient
) -> None:
    name = f"Barometer {uuid4().hex[:8]}"
    product = (await staff.post("/api/products", json=new_product(name=name))).json()
    listing = {"search": name}
    assert (await guest.get("/api/products", params=listing)).json()["items"][0]["available"] == 0
    await staff.put(f"/api/products/{product['id']}/stock", json={"onHand": 8})
    assert (await guest.get(f"/api/products/{product['id']}")).json()["available"] == 8

    async def listed() -> bool:
        answer = await guest.get("/api/products", params=listing)
        return bool(answer.json()["items"][0]["available"] == 8)

    await until(listed, seconds=1.5)


async def test_many_who_ask_for_the_same_list_get_the_same(guest: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(guest.get("/api/products?pageSize=5&sort=newest") for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["ETag"] for answer in answers}) <= 2


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=1.5",
        "page=99999999999999999999",
        "page=x",
        "pageSize=0",
        "pageSize=101",
        "sort=prices",
        "sort=name;drop table",
        "search=%00",
        "search=" + "x" * 201,
        "category=NO%20SUCH",
        "category=no-such",
    ],
)
async def test_a_list_that_cannot_be_is_refused(guest: httpx.AsyncClient, query: str) -> None:
    answer = await guest.get(f"/api/products?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == ("unknown_category" if query == "category=no-such" else "validation_error")


@pytest.mark.parametrize(
    "query", ["utm_source=mail", "search=%F0%9F%8E%A7", "search=%FF", "search=%27%22%3B--", "search="]
)
async def test_odd_queries_are_answered(guest: httpx.AsyncClient, query: str) -> None:
    assert (await guest.get(f"/api/products?{query}")).status_code == 200


@pytest.mark.parametrize("product", ["0", "-1", "1.5", "abc", "9" * 19, "9" * 40, "%00", "1%27"])
async def test_an_id_that_names_nothing_is_not_found(
    staff: httpx.AsyncClient, guest: httpx.AsyncClient, product: str
) -> None:
    answers = [
        await guest.get(f"/api/products/{product}"),
        await guest.get(f"/api/products/{product}/image.svg"),
        await staff.patch(f"/api/products/{product}", json={"name": "x"}),
        await staff.put(f"/api/products/{product}/stock", json={"onHand": 1}),
        await staff.put(f"/api/products/{product}/stock", json={"onHand": "many"}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["code"] for answer in answers} == {"not_found"}


async def test_only_staff_may_change_the_catalogue(shop: Shop, guest: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(1)
    calls = [
        ("POST", "/api/products", new_product()),
        ("POST", "/api/products", {"broken": 1}),
        ("PATCH", f"/api/products/{product}", {"name": "x"}),
        ("PATCH", "/api/products/999999999", {}),
        ("PUT", f"/api/products/{product}/stock", {"onHand": 1}),
    ]
    async with shop.shopper() as shopper:
        for method, path, body in calls:
            assert (await guest.request(method, path, json=body)).status_code == 401
            assert (await shopper.request(method, path, json=body)).status_code == 403


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"category": "no-such"}, "unknown_category"),
        ({"price": {"amount": 1, "currency": "USD"}}, "unsupported_currency"),
        ({"price": {"amount": 0, "currency": "EUR"}}, "validation_error"),
        ({"price": {"amount": -5, "currency": "EUR"}}, "validation_error"),
        ({"price": {"amount": 10**9, "currency": "EUR"}}, "validation_error"),
        ({"price": {"amount": 1.5, "currency": "EUR"}}, "validation_error"),
        ({"price": {"amount": "5", "currency": "EUR"}}, "validation_error"),
        ({"price": {"amount": 5, "currency": "EUR", "tax": 1}}, "validation_error"),
        ({"price": {"amount": 5}}, "validation_error"),
        ({"price": 5}, "validation_error"),
        ({"price": None}, "validation_error"),
        ({"sku": ""}, "validation_error"),
        ({"sku": "a b"}, "validation_error"),
        ({"sku": 7}, "validation_error"),
        ({"name": "   "}, "validation_error"),
        ({"name": "x" * 201}, "validation_error"),
        ({"name": "two\nlines"}, "validation_error"),
        ({"imageUrl": "javascript:alert(1)"}, "validation_error"),
        ({"imageUrl": "/a b"}, "validation_error"),
        ({"id": 5}, "validation_error"),
        ({"available": 5}, "validation_error"),
    ],
)
async def test_a_product_that_cannot_be_is_refused(
    staff: httpx.AsyncClient, changes: dict[str, Any], code: str
) -> None:
    answer = await staff.post("/api/products", json=new_product(**changes))
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == code


async def test_a_sku_is_given_once(staff: httpx.AsyncClient) -> None:
    body = new_product()
    answers = await asyncio.gather(*(staff.post("/api/products", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"sku_taken"}


async def test_only_what_is_sent_is_changed(staff: httpx.AsyncClient) -> None:
    product = (await staff.post("/api/products", json=new_product())).json()
    path = f"/api/products/{product['id']}"
    assert (await staff.patch(path, json={})).json() == product
    changed = (await staff.patch(path, json={"price": {"amount": 5100, "currency": "EUR"}})).json()
    assert changed == product | {"price": {"amount": 5100, "currency": "EUR"}}
    pictured = (await staff.patch(path, json={"imageUrl": "https://img.test/1.png"})).json()
    assert pictured["imageUrl"] == "https://img.test/1.png"
    assert (await staff.patch(path, json={"imageUrl": None})).json() == changed
    for body in ({"name": None}, {"price": None}, {"active": 1}, {"category": "no-such"}, {"onHand": 3}, {"id": 3}):
        assert (await staff.patch(path, json=body)).status_code == 422


async def test_what_is_not_for_sale_is_seen_by_staff_only(
    shop: Shop, staff: httpx.AsyncClient, guest: httpx.AsyncClient
) -> None:
    path = f"/api/products/{await shop.warehouse.product(1)}"
    assert (await staff.patch(path, json={"active": False})).json()["active"] is False
    async with shop.shopper() as shopper:
        assert (await guest.get(path)).status_code == (await shopper.get(path)).status_code == 404
    assert (await staff.get(path)).json()["active"] is False
    assert (await staff.patch(path, json={"active": True})).status_code == 200
    assert (await guest.get(path)).status_code == 200


async def test_stock_is_set_under_the_name_of_who_did(shop: Shop, staff: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(5)
    await shop.warehouse.run(inventory.reserve, uuid4(), {product: 3}, 600)
    path = f"/api/products/{product}/stock"
    refused = await staff.put(path, json={"onHand": 2})
    assert (refused.status_code, refused.json()["code"], refused.json()["reserved"]) == (409, "stock_reserved", 3)
    answer = await staff.put(path, json={"onHand": 7, "reason": "delivery"})
    assert (answer.status_code, answer.json()["available"]) == (200, 4)
    actor = (await staff.get("/api/auth/profile")).json()["userId"]
    [entry] = await shop.warehouse.rows(
        "SELECT kind, on_hand_delta FROM catalog.stock_ledger WHERE product_id = :p AND actor = :a", p=product, a=actor
    )
    assert tuple(entry) == ("receive", 2)
    for bad in (-1, 1.5, "3", None, True, 10**10):
        assert (await staff.put(path, json={"onHand": bad})).status_code == 422


async def test_categories_come_with_how_many_products_they_hold(guest: httpx.AsyncClient) -> None:
    found = (await guest.get("/api/categories")).json()["items"]
    [ours] = [category for category in found if category["slug"] == "warehouse"]
    assert ours["name"] == "Warehouse"
    assert ours["products"] > 0


async def test_suggestions_need_something_typed(guest: httpx.AsyncClient) -> None:
    found = (await guest.get("/api/products/suggest?q=teles")).json()["items"]
    assert all(set(item) == {"id", "name", "category", "imageUrl"} for item in found)
    for query in ("", "?q=", "?q=%20", "?q=" + "x" * 101, "?q=%00"):
        assert (await guest.get(f"/api/products/suggest{query}")).status_code == 422


async def test_prices_for_other_services_are_for_services_only(shop: Shop, staff: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(1, price_amount=777)
    assert (await shop.resources.catalog.priced([product, 2**50]))[product].unit_price.amount == 777
    assert (await staff.post("/internal/catalog/priced", json={"productIds": [product]})).status_code == 404
