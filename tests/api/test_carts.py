"""The cart over HTTP, for customers and for guests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.main import create_app
from core.settings import Settings
from models.types import Service
from services import catalog
from tests.api.accounts import PASSWORD, bearer, register, serving
from tests.api.shop import Shop, open_shop

EMPTY = {"version": 0, "lines": [], "total": {"amount": 0, "currency": "EUR"}}


@pytest.fixture(scope="module")
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with open_shop(settings) as opened:
        yield opened


@pytest.fixture
async def shopper(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.shopper() as client:
        yield client


@pytest.fixture
async def guest(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.guest() as client:
        yield client


async def _add(client: httpx.AsyncClient, product: int, quantity: int = 1) -> dict[str, Any]:
    answer = await client.post("/api/cart/add", json={"productId": product, "quantity": quantity})
    assert answer.status_code == 200, answer.text
    cart: dict[str, Any] = answer.json()
    return cart


def _quantities(cart: dict[str, Any]) -> dict[int, int]:
    return {line["productId"]: line["quantity"] for line in cart["lines"]}


async def test_a_cart_is_filled_changed_and_emptied(shop: Shop, shopper: httpx.AsyncClient) -> None:
    assert (await shopper.get("/api/cart")).json() == EMPTY
    cup = await shop.warehouse.product(9, name="Cup", price_amount=350)
    jug = await shop.warehouse.product(0, name="Jug", price_amount=1999)  # sold out goes in: checkout decides
    await _add(shopper, cup, 2)
    cart = await _add(shopper, jug)
    sku = (await shop.warehouse.run(catalog.get, cup)).sku
    assert cart["lines"][0] == {
        "productId": cup,
        "sku": sku,
        "name": "Cup",
        "quantity": 2,
        "unitPrice": {"amount": 350, "currency": "EUR"},
        "lineTotal": {"amount": 700, "currency": "EUR"},
        "forSale": True,
    }
    assert (cart["version"], cart["total"]) == (2, {"amount": 2699, "currency": "EUR"})
    changed = await shopper.patch(f"/api/cart/items/{cup}", json={"quantity": 5})
    assert (changed.json()["version"], changed.json()["total"]["amount"]) == (3, 3749)
    removed = await shopper.delete(f"/api/cart/items/{jug}")
    assert _quantities(removed.json()) == {cup: 5}
    assert (await shopper.get("/api/cart")).json() == removed.json()
    assert (await shopper.delete("/api/cart")).json() == EMPTY | {"version": 5}


@pytest.mark.parametrize("quantity", [0, -1, 100, 10**9, 1.5, 1.0, None, "1", True, [], {}, 1e400])
async def test_a_quantity_is_a_whole_number_from_1_to_99(shop: Shop, shopper: httpx.AsyncClient, quantity: Any) -> None:
    product = await shop.warehouse.product(1)
    await _add(shopper, product)
    number = "Infinity" if quantity == 1e400 else None
    for method, path, body in (
        ("POST", "/api/cart/add", {"productId": product, "quantity": quantity}),
        ("PATCH", f"/api/cart/items/{product}", {"quantity": quantity}),
    ):
        request: dict[str, Any] = {"json": body}
        if number:
            raw = f'{{"productId": {product}, "quantity": {number}}}'
            request = {"content": raw, "headers": {"Content-Type": "application/json"}}
        answer = await shopper.request(method, path, **request)
        assert answer.status_code == 422
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert _quantities((await shopper.get("/api/cart")).json()) == {product: 1}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"quantity": 1},
        {"productId": 1},
        {"productId": "1", "quantity": 1},
        {"productId": 0, "quantity": 1},
        {"productId": 2**70, "quantity": 1},
        {"productId": 1, "quantity": 1, "price": 1},
        [],
        None,
        "x",
    ],
)
async def test_a_body_of_another_shape_is_refused(shopper: httpx.AsyncClient, body: Any) -> None:
    assert (await shopper.post("/api/cart/add", json=body)).status_code == 422


async def test_sums_over_the_limits_are_refused_and_change_nothing(shop: Shop, shopper: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(1)
    before = await _add(shopper, product, 60)
    answer = await shopper.post("/api/cart/add", json={"productId": product, "quantity": 40})
    assert (answer.status_code, answer.json()["code"]) == (422, "quantity_limit")
    assert (await shopper.get("/api/cart")).json() == before


async def test_unknown_products_and_lines_are_not_found(shop: Shop, shopper: httpx.AsyncClient) -> None:
    retired = await shop.warehouse.product(1)
    await shop.warehouse.run(catalog.update, retired, {"active": False})
    for product in (retired, 2**40):
        answer = await shopper.post("/api/cart/add", json={"productId": product, "quantity": 1})
        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")
    for item in (str(retired), "0", "x", "1.5", "9" * 30):
        assert (await shopper.patch(f"/api/cart/items/{item}", json={"quantity": 1})).status_code == 404
        assert (await shopper.delete(f"/api/cart/items/{item}")).status_code == 404
    assert (await shopper.get("/api/cart")).json() == EMPTY


async def test_prices_are_those_of_now_and_what_is_no_longer_sold_does_not_count(
    shop: Shop, shopper: httpx.AsyncClient
) -> None:
    cup, jug = await shop.warehouse.product(1, price_amount=100), await shop.warehouse.product(1, price_amount=900)
    await _add(shopper, cup, 3)
    await _add(shopper, jug)
    await shop.warehouse.run(catalog.update, cup, {"price_amount": 150})
    await shop.warehouse.run(catalog.update, jug, {"active": False})
    cart = (await shopper.get("/api/cart")).json()
    assert [line["forSale"] for line in cart["lines"]] == [True, False]
    assert cart["total"]["amount"] == 450
    refused = await shopper.patch(f"/api/cart/items/{jug}", json={"quantity": 2})
    assert (refused.status_code, refused.json()["code"]) == (404, "product_not_found")
    assert _quantities((await shopper.delete(f"/api/cart/items/{jug}")).json()) == {cup: 3}


async def test_parallel_adds_lose_nothing(shop: Shop, shopper: httpx.AsyncClient) -> None:
    products = [await shop.warehouse.product(1) for _ in range(2)]
    await asyncio.gather(*(_add(shopper, products[nth % 2]) for nth in range(24)))
    cart = (await shopper.get("/api/cart")).json()
    assert _quantities(cart) == {products[0]: 12, products[1]: 12}
    assert cart["version"] == 24


async def test_carts_are_apart(shop: Shop, shopper: httpx.AsyncClient) -> None:
    product = await shop.warehouse.product(1)
    await _add(shopper, product)
    async with shop.shopper() as other:
        assert (await other.get("/api/cart")).json() == EMPTY
        me = (await shopper.get("/api/auth/profile")).json()["userId"]
        body = {"productId": product, "quantity": 1, "userId": me}
        assert (await other.post("/api/cart/add", json=body)).status_code == 403
        assert (await other.post("/api/cart/add", json=body | {"unknown": 1})).status_code == 403
        assert (await other.patch(f"/api/cart/items/{product}", json={"userId": me})).status_code == 403
        assert (await shopper.post("/api/cart/add", json=body)).status_code == 200


async def test_a_guest_has_a_cart_by_a_cookie_that_scripts_cannot_read(shop: Shop, guest: httpx.AsyncClient) -> None:
    assert (await guest.get("/api/cart")).json() == EMPTY
    assert not guest.cookies
    product = await shop.warehouse.product(1)
    answer = await guest.post("/api/cart/add", json={"productId": product, "quantity": 2})
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert _quantities((await guest.get("/api/cart")).json()) == {product: 2}
    async with shop.guest() as other:
        assert (await other.get("/api/cart")).json() == EMPTY
        other.cookies.set("mercato_guest", "guessed")
        assert (await other.get("/api/cart")).json() == EMPTY


async def test_who_signs_in_brings_the_guests_cart_along_once(shop: Shop, guest: httpx.AsyncClient) -> None:
    cup, jug = await shop.warehouse.product(1), await shop.warehouse.product(1)
    credentials = await shop.credentials()
    async with shop.guest() as elsewhere:
        elsewhere.headers.update(credentials)
        await _add(elsewhere, cup, 50)
    await _add(guest, cup, 60)
    await _add(guest, jug, 2)
    token = guest.cookies["mercato_guest"]
    guest.headers.update(credentials)
    merged = await guest.get("/api/cart")
    assert _quantities(merged.json()) == {cup: 99, jug: 2}
    assert "mercato_guest" not in guest.cookies
    guest.cookies.set("mercato_guest", token)  # an old tab
    assert _quantities((await guest.get("/api/cart")).json()) == {cup: 99, jug: 2}


async def test_a_login_takes_the_guests_cart_along_at_once(shop: Shop, guest: httpx.AsyncClient) -> None:
    async with shop.guest() as client:
        email, tokens = await register(client)
        client.headers.update(bearer(tokens))
        cup = await shop.warehouse.product(1)
        await _add(guest, cup, 3)
        answer = await guest.post("/api/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 200
        assert "mercato_guest" not in guest.cookies
        assert _quantities((await client.get("/api/cart")).json()) == {cup: 3}


async def test_a_login_without_the_carts_leaves_the_guests_cart_for_later(
    shop: Shop, settings: Settings, guest: httpx.AsyncClient
) -> None:
    cup = await shop.warehouse.product(1)
    await _add(guest, cup, 3)
    alone = settings.model_copy(update={"carts_url": "http://127.0.0.1:1"})
    async with serving(create_app(alone, [Service.USERS])) as users:
        email, _ = await register(users)
        users.cookies.set("mercato_guest", guest.cookies["mercato_guest"])
        answer = await users.post("/api/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200
    assert "mercato_guest" not in answer.headers["Set-Cookie"]
    guest.headers.update(bearer(answer.json()))
    assert _quantities((await guest.get("/api/cart")).json()) == {cup: 3}


async def test_a_merge_is_for_services_only(shopper: httpx.AsyncClient) -> None:
    body = {"guestToken": "x", "customerId": "01a2089c-98ed-7490-9136-86c20e911d0a"}
    assert (await shopper.post("/internal/carts/merge", json=body)).status_code == 404


async def test_writing_a_cart_is_limited_by_who_calls(shop: Shop, settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"rate_limits": "on"}), [Service.USERS, Service.CARTS])
    async with serving(app) as client:
        headers = await shop.credentials()
        answers = [await client.delete("/api/cart", headers=headers) for _ in range(601)]
        assert [answer.status_code for answer in answers] == [200] * 600 + [429]
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert (await client.delete("/api/cart", headers=await shop.credentials())).status_code == 200


async def test_a_bad_token_is_401_and_not_a_guest(shop: Shop, guest: httpx.AsyncClient) -> None:
    guest.headers["Authorization"] = "Bearer nonsense"
    product = await shop.warehouse.product(1)
    assert (await guest.get("/api/cart")).status_code == 401
    assert (await guest.post("/api/cart/add", json={"productId": product, "quantity": 1})).status_code == 401


async def test_without_the_catalogue_carts_say_so_and_nothing_changes(shop: Shop, settings: Settings) -> None:
    product = await shop.warehouse.product(1)
    alone = settings.model_copy(update={"catalog_url": "http://127.0.0.1:1"})
    async with serving(create_app(alone, [Service.USERS, Service.CARTS])) as client:
        client.headers.update(await shop.credentials())
        answer = await client.post("/api/cart/add", json={"productId": product, "quantity": 1})
        assert (answer.status_code, answer.json()["code"]) == (503, "dependency_unavailable")
        assert "Retry-After" in answer.headers
        assert (await client.get("/api/cart")).json() == EMPTY
