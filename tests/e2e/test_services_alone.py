"""Six services as six processes behind the gateway, each with the address of its own database role and no other: the
same shop."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from httpx import AsyncClient

from core.settings import SERVICE_PORTS
from models.types import Service
from tests.e2e.flow import buy_two_lamps
from tests.e2e.shop import Shop, browser
from tests.e2e.shopper import DECLINED, Shopper, problem
from tests.gateway import ANOTHER_ADDRESS, needs_another_address, running_gateway
from tests.stack import Platform, RunningApi, free_port

# A table of each service, for the others to be refused at.
TABLES = {
    Service.USERS: "users.users",
    Service.CATALOG: "catalog.products",
    Service.CARTS: "carts.carts",
    Service.ORDERS: "orders.orders",
    Service.PAYMENTS: "payments.payments",
    Service.NOTIFICATIONS: "notifications.messages",
}


# As in docker-compose.yml: the gateway's network is believed, and who calls too often is told so.
BEHIND_A_GATEWAY = {"MERCATO_TRUSTED_PROXIES": "127.0.0.0/8", "MERCATO_RATE_LIMITS": "on"}


async def start_six(platform: Platform) -> dict[Service, RunningApi]:
    """All at once; they find each other by address."""
    ports = {service: free_port() for service in Service}
    addresses = {f"MERCATO_{service.name}_URL": f"http://127.0.0.1:{port}" for service, port in ports.items()}

    def start(service: Service) -> RunningApi:
        others = {f"MERCATO_{other.name}_DATABASE_URL": "" for other in Service if other is not service}
        env = {**others, "MERCATO_DATABASE_URL": "", **addresses, **BEHIND_A_GATEWAY}
        return platform.start_api([service], ports[service], env)

    running = await asyncio.gather(*(asyncio.to_thread(start, service) for service in Service))
    return dict(zip(Service, running, strict=True))


@pytest.fixture(scope="module")
async def six(platform: Platform) -> AsyncIterator[dict[Service, RunningApi]]:
    running = await start_six(platform)
    yield running
    await asyncio.gather(*(api.stop() for api in running.values()))


@pytest.fixture(scope="module")
async def gateway(platform: Platform, six: dict[Service, RunningApi]) -> AsyncIterator[AsyncClient]:
    """One address in front of the six."""
    addresses = {service: api.base_url for service, api in six.items()}
    async with running_gateway(platform.stack, addresses) as running, browser(running.url) as door:
        yield door


@pytest.fixture(params=["one process", "six behind the gateway"])
def door(request: pytest.FixtureRequest, shop: Shop) -> AsyncClient:
    if request.param == "one process":
        return shop.http
    gateway: AsyncClient = request.getfixturevalue("gateway")
    return gateway


async def test_a_shopper_buys_two_lamps(door: AsyncClient, shop: Shop) -> None:
    await buy_two_lamps(shop, door)


async def test_a_declined_card_then_a_good_one(door: AsyncClient, shop: Shop) -> None:
    product, shopper = await shop.product(), await Shopper.registered(door)
    await shopper.add(product, 2)
    order_id = problem(await shopper.place(DECLINED), 402, "payment_declined")["orderId"]
    assert (await shopper.pay(order_id)).status_code == 201
    await shopper.until(order_id, paymentStatus="captured")
    assert await shop.stock(product) == (8, 0)


async def test_staff_find_a_customers_orders_by_address(door: AsyncClient, shop: Shop) -> None:
    """The orders service knows no addresses: it asks the users service."""
    product, shopper = await shop.product(), await Shopper.registered(door)
    await shopper.add(product)
    order_id = (await shopper.place()).json()["orderId"]
    support = shop.support.at(door)
    for customer in (shopper.email.upper(), shopper.user_id):
        found = (await support.get("/api/orders", customer=customer)).json()["items"]
        assert [order["id"] for order in found] == [order_id]
    assert (await support.get("/api/orders", customer="nobody@mercato.test")).json()["items"] == []


async def test_who_signs_out_is_out_of_every_service_at_once(door: AsyncClient) -> None:
    shopper = await Shopper.registered(door)
    assert (await shopper.get("/api/orders/history")).status_code == 200
    assert (await door.post("/api/auth/logout", headers=shopper.headers)).status_code == 204
    for path in ("/api/auth/profile", "/api/cart", "/api/orders/history", "/api/notifications"):
        problem(await shopper.get(path), 401, "unauthenticated")


async def test_a_service_serves_nothing_of_another(six: dict[Service, RunningApi]) -> None:
    paths = {Service.USERS: "/api/auth/profile", Service.CATALOG: "/api/products", Service.ORDERS: "/api/orders"}
    async with httpx.AsyncClient() as http:
        for service, api in six.items():
            for owner, path in paths.items():
                status = (await http.get(f"{api.base_url}{path}")).status_code
                assert (status == 404) == (owner is not service), (service, path, status)
            ready = (await http.get(f"{api.base_url}/health/ready")).json()["dependencies"]
            assert [name for name in ready if name.startswith("postgres:")] == [f"postgres:{service.value}"]


@needs_another_address
async def test_callers_behind_the_gateway_are_told_apart_by_address(gateway: AsyncClient) -> None:
    async def verify(http: AsyncClient) -> httpx.Response:
        return await http.post("/api/auth/verify", json={"token": "mine"}, headers={"X-Forwarded-For": "127.0.0.3"})

    elsewhere = httpx.AsyncHTTPTransport(local_address=ANOTHER_ADDRESS)
    async with httpx.AsyncClient(base_url=gateway.base_url, transport=elsewhere) as stranger:
        for _ in range(20):
            problem(await verify(stranger), 400, "invalid_token")
        refused = await verify(stranger)
    problem(refused, 429, "too_many_requests")
    assert int(refused.headers["retry-after"]) >= 1
    problem(await verify(gateway), 400, "invalid_token")


async def test_the_gateway_doubles_no_header(gateway: AsyncClient, six: dict[Service, RunningApi]) -> None:
    through = await gateway.get("/api/products", headers={"X-Mercato-Service": "me"})
    async with httpx.AsyncClient() as http:
        direct = await http.get(f"{six[Service.CATALOG].base_url}/api/products")
    assert through.content == direct.content
    names = sorted(name for name, _ in through.headers.multi_items())
    assert names == sorted(name for name, _ in direct.headers.multi_items())


async def test_without_the_catalogue_the_cart_says_so_and_the_rest_goes_on(shop: Shop, platform: Platform) -> None:
    """Carts alone, whose catalogue is not there."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    missing = {"MERCATO_CATALOG_URL": f"http://127.0.0.1:{free_port()}", "MERCATO_USERS_URL": platform.base_url}
    api = await asyncio.to_thread(platform.start_api, [Service.CARTS], None, missing)
    async with browser(api.base_url) as door:
        refused = await shopper.at(door).get("/api/cart")
        problem(refused, 503, "dependency_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
    await api.stop()
    assert await shopper.cart() == {product: 1}


@pytest.mark.parametrize("service", Service)
async def test_a_services_role_is_refused_at_every_other_schema(service: Service, platform: Platform) -> None:
    connection = await asyncpg.connect(platform.env[f"MERCATO_{service.name}_DATABASE_URL"])
    try:
        await connection.fetchval(f"SELECT count(*) FROM {TABLES[service]}")
        for other, table in TABLES.items():
            if other is service:
                continue
            for statement in (f"SELECT FROM {table}", f"DELETE FROM {table}", f"CREATE TABLE {other.value}.mine ()"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        for statement in ("SELECT FROM processor.payment_intent", "CREATE SCHEMA mine", "CREATE TABLE public.mine ()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


def test_every_service_has_a_port_when_alone() -> None:
    assert {service.value: port for service, port in SERVICE_PORTS.items()} == {
        "users": 5001,
        "catalog": 5002,
        "carts": 5003,
        "orders": 5004,
        "payments": 5005,
        "notifications": 5006,
    }


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
