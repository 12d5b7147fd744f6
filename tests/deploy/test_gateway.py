"""Traefik with the files that docker-compose.yml mounts, in front of servers that say what reached them.

In front of the real services it stands in tests/e2e/test_services_alone.py.
"""

import asyncio
import json
import posixpath
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from urllib.parse import unquote, urlsplit

import httpx
import pytest
import yaml
from fastapi.routing import APIRoute

from api.main import KEEP_ALIVE_SECONDS, ROUTERS
from models.types import Service
from tests.deploy.echo import Echoes
from tests.gateway import ANOTHER_ADDRESS, FILES, Gateway, needs_another_address, running_gateway
from tests.stack import HOST, Stack


@pytest.fixture(scope="module")
async def echoes() -> AsyncIterator[Echoes]:
    async with Echoes.running() as echoes:
        yield echoes


@pytest.fixture(scope="module")
async def gateway(stack: Stack, echoes: Echoes) -> AsyncIterator[Gateway]:
    async with running_gateway(stack, echoes.addresses) as gateway:
        yield gateway


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
        yield http


@pytest.fixture
async def stranger(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who calls from another address."""
    transport = httpx.AsyncHTTPTransport(local_address=ANOTHER_ADDRESS)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20, transport=transport) as http:
        yield http


def routes() -> Iterator[tuple[Service, str, str]]:
    """(service, method, path) of all that the services serve."""
    for service, routers in ROUTERS.items():
        for router in routers:
            for route in router.routes:
                assert isinstance(route, APIRoute)
                path = re.sub(r"\{\w+\}", "0197f2a4-7c1e-7000-8000-000000000001", route.path)
                yield from ((service, method, path) for method in sorted(route.methods))


@pytest.mark.parametrize(("service", "method", "path"), list(routes()), ids=str)
async def test_every_path_of_a_service_leads_to_it_and_internal_ones_nowhere(
    http: httpx.AsyncClient, echoes: Echoes, service: Service, method: str, path: str
) -> None:
    echoes.go_on.set()
    answer = await http.request(method, path)
    if path.startswith("/internal/"):
        assert answer.status_code == 404
    elif path.endswith("/events"):
        assert answer.headers["content-type"] == "text/event-stream"
    else:
        assert (answer.json()["service"], answer.json()["method"], answer.json()["path"]) == (service, method, path)


@pytest.mark.parametrize("path", ["/docs", "/docs/assets/start.js", "/openapi.json"])
async def test_the_documentation_is_served(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).json()["path"] == path


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/internal", "/internal/users/keys", "/metrics", "/health/live", "/health/ready", "/ping"),
        *("/api/cartoons", "/api/products-of-ours", "/api/overview", "/dashboard/"),
        *("/api/orders/../../internal/users/keys", "/api/cart/..;/..;/metrics", "//internal/users/keys"),
        *("/api/auth/%2e%2e/%2e%2e/internal/users/keys", "/api/orders/..%2f..%2finternal/users/keys"),
    ],
)
async def test_what_is_inside_stays_inside(gateway: Gateway, path: str) -> None:
    status, body = await _raw(gateway, f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    if status == 200:  # some service was asked, but for nothing that could be read as another place
        assert posixpath.normpath(unquote(json.loads(body)["path"])).startswith("/api/")
    else:
        assert status in (400, 404)


async def test_a_service_is_not_told_what_only_services_and_gateways_may_say(http: httpx.AsyncClient) -> None:
    lies = {
        "X-Mercato-Service": "me",
        "X-Forwarded-For": "6.6.6.6",
        "X-Real-Ip": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "elsewhere",
        "Authorization": "Bearer mine",
        "Idempotency-Key": "a-key",
        "X-Request-Id": "my-request",
    }
    told = (await http.post("/api/orders/place", json={}, headers=lies)).json()["headers"]
    assert "x-mercato-service" not in told
    assert (told["x-forwarded-for"], told["x-real-ip"], told["x-forwarded-proto"]) == (HOST, HOST, "http")
    assert told["host"] == told["x-forwarded-host"] == str(http.base_url.netloc, "ascii")
    for name in ("authorization", "idempotency-key", "x-request-id"):
        assert told[name] == lies[next(lie for lie in lies if lie.lower() == name)]


@pytest.mark.parametrize("path", ["/api/orders/events", "/api/orders/0197f2a4-7c1e-7000-8000-000000000001/events"])
async def test_an_event_arrives_while_its_stream_stays_open(http: httpx.AsyncClient, echoes: Echoes, path: str) -> None:
    echoes.go_on.clear()
    async with http.stream("GET", path) as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "data: first"  # the second is not sent before this one is here
        echoes.go_on.set()
        assert [line async for line in lines if line] == ["data: second"]


@needs_another_address
async def test_a_flood_of_logins_is_refused_and_nobody_else_notices(
    http: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    answers = await asyncio.gather(*(stranger.post("/api/auth/login", json={}) for _ in range(60)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) in range(20, 31)  # 30 at once are let through, and one more each second
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert (await stranger.get("/api/products")).status_code == 200
    assert (await stranger.get("/api/auth/profile")).status_code == 200
    assert (await http.post("/api/auth/login", json={})).status_code == 200


async def test_a_body_is_passed_on_whole_and_refused_beyond_reason(http: httpx.AsyncClient) -> None:
    passed = await http.post("/api/cart/add", content=b"x" * 300_000)  # the service says 413 to this, in its own words
    assert passed.json()["bytes"] == 300_000
    assert (await http.post("/api/cart/add", content=b"x" * 1_100_000)).status_code == 413


async def test_what_has_reached_a_service_is_never_sent_again(http: httpx.AsyncClient, echoes: Echoes) -> None:
    assert (await http.get("/api/products/dropped")).status_code == 502
    assert (await http.patch("/api/products/dropped", json={})).status_code == 502
    assert (await http.post("/api/orders/dropped", json={}, headers={"Idempotency-Key": "k"})).status_code == 502
    assert echoes.dropped == {"GET": 1, "PATCH": 1, "POST": 1}


def test_the_gateway_hangs_up_before_the_services_do() -> None:
    static = yaml.safe_load((FILES / "traefik.yml").read_text())
    idle = static["serversTransport"]["forwardingTimeouts"]["idleConnTimeout"]
    assert int(idle.removesuffix("s")) < KEEP_ALIVE_SECONDS


async def test_traefik_finds_no_fault_with_its_files(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.api_url) as http:
        overview = (await http.get("/api/overview")).json()["http"]
        routers = (await http.get("/api/http/routers", params={"per_page": 100})).json()
    for kind in ("routers", "services", "middlewares"):
        assert (overview[kind]["errors"], overview[kind]["warnings"]) == (0, 0), kind
    written = yaml.safe_load((FILES / "dynamic.yml").read_text())["http"]["routers"]
    ours = {router["name"]: router for router in routers if router["provider"] == "file"}
    assert ours.keys() == {f"{name}@file" for name in written}
    for name, router in ours.items():
        assert (router["entryPoints"], router["middlewares"][0]) == (["web"], "clean@file"), name


async def test_health_and_metrics_of_the_gateway_have_a_port_of_their_own(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    assert (await http.get("/api/products")).status_code == 200
    async with httpx.AsyncClient(base_url=gateway.ops_url) as ops:
        assert (await ops.get("/ping")).status_code == 200
        metrics = (await ops.get("/metrics")).text
        assert (await ops.get("/api/products")).status_code == 404
    assert 'router="catalog-reads@file"' in metrics
    check = [gateway.program.command[0], "healthcheck", *gateway.program.command[1:]]  # as the container checks itself
    assert (await asyncio.to_thread(subprocess.run, check, check=False)).returncode == 0


async def _raw(gateway: Gateway, request: str) -> tuple[int, str]:
    """Status and body of a request that no library has tidied up."""
    address = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request.encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body
