"""Bad input gets a clear problem document and loses nothing."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from fastapi.routing import iter_route_contexts

from api.auth import GUARDS
from api.main import create_app
from api.tokens import make_signer
from core.settings import Settings
from models.types import Role, uuid7
from tests.e2e.shop import Shop
from tests.e2e.shopper import DECLINED, Shopper, problem

HUGE = 300 * 1024
KEY = {"Idempotency-Key": "a-key"}
# What says on purpose that it is for everybody without a guard of its own: nothing about anybody is in it.
OPERATIONS = {"/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"}


@dataclass
class Scene:
    """A shopper with a waiting order and a full cart, who must have both afterwards as well."""

    shop: Shop
    shopper: Shopper
    product: int
    order_id: str

    async def is_as_before(self) -> None:
        assert await self.shopper.cart() == {self.product: 2}
        history = (await self.shopper.get("/api/orders/history")).json()["items"]
        assert [(order["id"], order["status"]) for order in history] == [(self.order_id, "action_required")]
        assert await self.shop.stock(self.product) == (10, 2)

    async def send(self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        path = path.format(order=self.order_id, product=self.product)
        send = {**self.shopper.headers, "Idempotency-Key": uuid4().hex, **(headers or {})}
        return await self.shop.http.request(method, path, headers=send, **body)


@pytest.fixture(scope="module")
async def scene(shop: Shop) -> Scene:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    return Scene(shop, shopper, product, order_id)


@pytest.fixture(autouse=True)
async def _nothing_was_lost(scene: Scene) -> AsyncIterator[None]:
    yield
    await scene.is_as_before()


WRITES = {
    "add": ("POST", "/api/cart/add"),
    "change": ("PATCH", "/api/cart/items/{product}"),
    "place": ("POST", "/api/orders/place"),
    "pay": ("POST", "/api/orders/{order}/payment"),
    "cancel": ("POST", "/api/orders/{order}/cancel"),
    "register": ("POST", "/api/auth/register"),
    "login": ("POST", "/api/auth/login"),
}
WRONG_BODIES = {
    "no JSON": (b"{not json", "malformed_json"),
    "cut off": (b'{"paymentMethodId": "pm_', "malformed_json"),
    "not a number": (b'{"quantity": NaN}', "malformed_json"),
    "a null character": (b'{"paymentMethodId": "pm_\\u0000"}', "malformed_json"),
    "no UTF-8": (b'{"reason": "\xff\xfe"}', "malformed_json"),
    "a list": (b"[]", "validation_error"),
    "a number": (b"7", "validation_error"),
    "a deep nest": (b"[" * 20000 + b"]" * 20000, "malformed_json"),
    "unknown fields": (b'{"surprise": 1}', "validation_error"),
}


@pytest.mark.parametrize("body", WRONG_BODIES)
@pytest.mark.parametrize("write", WRITES)
async def test_a_body_that_is_none_is_422(write: str, body: str, scene: Scene) -> None:
    content, code = WRONG_BODIES[body]
    method, path = WRITES[write]
    answer = await scene.send(method, path, content=content, headers={"Content-Type": "application/json"})
    problem(answer, 422, code)


@pytest.mark.parametrize("write", WRITES)
async def test_a_huge_body_is_413(write: str, scene: Scene) -> None:
    method, path = WRITES[write]
    problem(await scene.send(method, path, content=b"x" * HUGE), 413, "body_too_large")

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (HUGE // 4)

    problem(await scene.send(method, path, content=unannounced()), 413, "body_too_large")


QUANTITIES: list[Any] = [0, -1, 10**9, 10**30, 1.5, None, "1", True, [], {}]


@pytest.mark.parametrize("quantity", QUANTITIES, ids=repr)
async def test_a_quantity_that_is_none_is_422(quantity: Any, scene: Scene) -> None:
    added = await scene.send("POST", "/api/cart/add", json={"productId": scene.product, "quantity": quantity})
    assert problem(added, 422, "validation_error")["errors"][0]["field"] == "quantity"
    changed = await scene.send("PATCH", "/api/cart/items/{product}", json={"quantity": quantity})
    problem(changed, 422, "validation_error")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"paymentMethodId": None},
        {"paymentMethodId": 7},
        {"paymentMethodId": ""},
        {"paymentMethodId": "pm card"},
        {"paymentMethodId": "p" * 256},
        {"payment_method_id": "pm_card_visa"},
        {"paymentMethodId": "pm_card_visa", "cartVersion": "1"},
        {"paymentMethodId": "pm_card_visa", "expectedTotal": 5000},
        {"paymentMethodId": "pm_card_visa", "expectedTotal": {"amount": 50.0, "currency": "EUR"}},
        {"paymentMethodId": "pm_card_visa", "expectedTotal": {"amount": -1, "currency": "EUR"}},
        {"paymentMethodId": "pm_card_visa", "expectedTotal": {"amount": "1", "currency": "EUR"}},
        {"paymentMethodId": "pm_card_visa", "expectedTotal": {"amount": 1, "currency": "euro"}},
        {"paymentMethodId": "pm_card_visa", "shippingAddress": {"name": "only"}},
        {"paymentMethodId": "pm_card_visa", "total": {"amount": 1, "currency": "EUR"}},
    ],
    ids=str,
)
async def test_an_order_that_is_none_is_422(body: dict[str, Any], scene: Scene) -> None:
    answer = problem(await scene.send("POST", "/api/orders/place", json=body), 422, "validation_error")
    assert answer["errors"]
    assert "orderId" not in answer


@pytest.mark.parametrize("order", ["1", "nothing", "%00", "..%2f..", str(uuid4()), "0" * 300])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/events"), ("POST", "/payment"), ("POST", "/cancel")],
)
async def test_an_unknown_order_is_404(method: str, path: str, order: str, scene: Scene) -> None:
    body = {} if path != "/payment" else {"paymentMethodId": "pm_card_visa"}
    problem(await scene.send(method, f"/api/orders/{order}{path}", json=body), 404, "not_found")


@pytest.mark.parametrize("product", ["0", "-1", "x", "1.5", str(2**63), "999999999", "%00"])
async def test_an_unknown_product_is_404(product: str, scene: Scene) -> None:
    problem(await scene.send("GET", f"/api/products/{product}"), 404, "not_found")
    missing = await scene.send("PATCH", f"/api/cart/items/{product}", json={"quantity": 1})
    assert problem(missing, 404, missing.json()["code"])["code"] in ("not_found", "line_not_found")
    unknown = await scene.send("POST", "/api/cart/add", json={"productId": 999999999, "quantity": 1})
    problem(unknown, 404, "product_not_found")


async def test_another_shoppers_order_does_not_exist(scene: Scene) -> None:
    stranger = await scene.shop.shopper()
    order_id = scene.order_id
    problem(await stranger.get(f"/api/orders/{order_id}"), 404, "not_found")
    problem(await stranger.get(f"/api/orders/{order_id}/events"), 404, "not_found")
    problem(await stranger.pay(order_id), 404, "not_found")
    problem(await stranger.cancel(order_id), 404, "not_found")
    problem(await stranger.get(f"/api/payments/{order_id}"), 403, "forbidden")
    problem(await stranger.get("/api/orders"), 403, "forbidden")
    assert (await stranger.get("/api/orders/history")).json()["items"] == []


async def test_somebody_elses_user_id_is_403(scene: Scene) -> None:
    other = str(uuid4())
    add = {"productId": scene.product, "quantity": 1, "userId": other}
    problem(await scene.send("POST", "/api/cart/add", json=add), 403, "forbidden")
    place = {"paymentMethodId": "pm_card_visa", "userId": other}
    problem(await scene.send("POST", "/api/orders/place", json=place), 403, "forbidden")


def _bad_tokens(settings: Settings, user_id: str) -> dict[str, tuple[str, str]]:
    signed = make_signer(settings)
    expired = make_signer(settings.model_copy(update={"access_token_seconds": -60}))
    good = signed.sign(uuid7(), uuid4(), Role.ADMIN)
    head, body, seal = good.split(".")
    return {
        "expired": (f"Bearer {expired.sign(uuid7(), uuid4(), Role.SHOPPER)}", "token_expired"),
        "garbage": ("Bearer garbage", "unauthenticated"),
        "empty": ("Bearer", "unauthenticated"),
        "no bearer": (f"Basic {good}", "unauthenticated"),
        "body of another": (f"Bearer {head}.{body[:-4]}AAAA.{seal}", "unauthenticated"),
        "no seal": (f"Bearer {head}.{body}.", "unauthenticated"),
        "too long": (f"Bearer {good}{'A' * 4000}", "unauthenticated"),
    }


async def test_a_bad_token_is_401_everywhere(scene: Scene) -> None:
    for authorization, code in _bad_tokens(scene.shop.platform.settings, scene.shopper.user_id).values():
        headers = {"Authorization": authorization}
        for method, path in [("GET", "/api/cart"), ("GET", "/api/orders/history"), ("POST", "/api/orders/place")]:
            answer = await scene.send(method, path, headers=headers)
            problem(answer, 401, code)
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_checks_come_in_their_order(scene: Scene) -> None:
    """401, then 404, then the key (400), then the body (422), then the state (409)."""
    http, path = scene.shop.http, f"/api/orders/{scene.order_id}/payment"
    unknown, mine = f"/api/orders/{uuid4()}/payment", scene.shopper.headers
    bad, good = {"what": 1}, {"paymentMethodId": "pm_card_visa"}
    problem(await http.post(unknown, json=bad), 401, "unauthenticated")
    problem(await http.post(unknown, json=bad, headers=mine), 404, "not_found")
    problem(await http.post(path, json=bad, headers=mine), 400, "idempotency_key_required")
    problem(await http.post(path, json=bad, headers=mine | KEY), 422, "validation_error")
    ended = await scene.shop.shopper()
    await ended.add(scene.product)
    order_id = problem(await ended.place(DECLINED), 402, "payment_declined")["orderId"]
    assert (await ended.cancel(order_id)).status_code == 200
    answer = await http.post(f"/api/orders/{order_id}/payment", json=good, headers=ended.headers | KEY)
    problem(answer, 409, "not_payable")


async def test_what_is_not_there_and_what_is_not_allowed_are_problems_too(scene: Scene) -> None:
    problem(await scene.send("GET", "/api/nothing"), 404, "not_found")
    refused = await scene.send("DELETE", "/api/orders/place")
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"]
    problem(await scene.send("GET", "/api/orders/history?limit=1000"), 422, "validation_error")
    problem(await scene.send("GET", "/api/orders/history?cursor=x"), 422, "validation_error")
    problem(await scene.send("GET", "/api/products?sort=colour"), 422, "validation_error")


async def test_internal_routes_do_not_exist_for_strangers(scene: Scene) -> None:
    problem(await scene.send("POST", "/internal/catalog/priced", json={"productIds": [1]}), 404, "not_found")
    problem(await scene.send("GET", f"/internal/users/sessions/{uuid4()}"), 404, "not_found")


def test_every_route_says_who_may_call_it() -> None:
    app = create_app(Settings(environment="test"))
    unguarded = []
    for route in iter_route_contexts(app.routes):
        path = getattr(route, "path", "")
        if path.startswith(("/api", "/internal")) and not GUARDS & _dependencies_of(route):
            unguarded.append(path)
        elif not path.startswith(("/api", "/internal", "/docs")):
            assert path in OPERATIONS, path
    assert unguarded == []


def _dependencies_of(route: Any) -> set[Any]:
    """Every callable that the route depends on, at any depth."""
    found: set[Any] = set()
    below = [route.dependant]
    while below:
        dependant = below.pop()
        found.add(dependant.call)
        below += dependant.dependencies
    return found


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
