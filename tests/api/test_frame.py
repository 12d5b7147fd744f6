"""The frame around every route, on apps whose dependencies are all down: closed ports stand for them."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import Field
from sqlalchemy import text

from api.auth import CurrentUser
from api.deps import OrdersSession
from api.main import create_app
from api.routing import Router
from api.shapes import RequestModel
from core.logging import configure_logging
from core.settings import Settings
from core.telemetry import configure_telemetry
from models.errors import Conflict, TooManyRequests
from models.types import Service

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"

probe = Router()


class Line(RequestModel):
    product_id: Annotated[int, Field(ge=1)]
    unit_weight: float = 1.0


class Optional(RequestModel):
    note: str | None = None


@probe.post("/api/probe/guarded")
async def guarded(caller: CurrentUser, line: Line) -> None: ...


@probe.post("/api/probe/open")
async def open_to_all(line: Line) -> int:
    return line.product_id


@probe.post("/api/probe/optional")
async def optional_body(body: Optional | None = None) -> str:
    return "fine"


@probe.get("/api/probe/items/{number}")
async def item(number: int) -> int:
    return number


@probe.delete("/api/probe/items/{number}")
async def drop(number: int) -> None: ...


@probe.get("/api/probe/bug")
async def bug() -> None:
    secret = "pm_card_canary"
    raise KeyError(secret)


@probe.get("/api/probe/database")
async def database(session: OrdersSession) -> None:
    await (await session.connection()).execute(text("SELECT 1"))


@probe.get("/api/probe/conflict")
async def conflict() -> None:
    raise Conflict("Gone meanwhile.", code="out_of_stock", available_units=3)


@probe.get("/api/probe/in-flight")
async def in_flight() -> None:
    raise Conflict("Wait.", code="idempotency_in_progress", retry_after=1, orderId="an-order")


@probe.get("/api/probe/busy")
async def busy() -> None:
    raise TooManyRequests("Slow down.", retry_after=7)


def make_settings(folder: Path, **changes: object) -> Settings:
    return Settings(
        database_url="postgresql://mercato:none@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
        temporal_address="127.0.0.1:1",
        data_dir=folder,
        log_level="DEBUG",
        **changes,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    settings = make_settings(tmp_path_factory.mktemp("frame"))
    configure_telemetry(settings, "test")
    app = create_app(settings)
    app.include_router(probe)
    async with client_of(app) as opened:
        yield opened


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = response.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["instance"] == response.request.url.path
    assert document["traceId"] == response.headers["x-trace-id"]
    return document


async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/api/nowhere"), 404, "not_found")
    assert_problem(await client.get("/api/products/"), 404, "not_found")  # no redirect to wherever Host says


async def test_a_wrong_method_names_the_right_ones(client: httpx.AsyncClient) -> None:
    response = await client.post("/health/live")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET"
    response = await client.put("/api/probe/items/1")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"productId": NaN}', b"[" * 60_000, b'{"a": "\\u0000"}'])
async def test_json_that_cannot_be_read_is_refused_by_name(client: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/api/probe/open", "/api/probe/optional"):
        response = await client.post(path, content=body, headers={"content-type": "application/json"})
        assert_problem(response, 422, "malformed_json")


async def test_an_escaped_backslash_before_u0000_is_no_null_character(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/probe/optional", json={"note": "\\u0000"})
    assert response.status_code == 200


async def test_a_stranger_learns_nothing_about_his_body(client: httpx.AsyncClient) -> None:
    for body in (b"{", b"{}", b'{"productId": 1}', b""):
        response = await client.post("/api/probe/guarded", content=body, headers={"content-type": "application/json"})
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_field_errors_name_the_field_and_never_its_value(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/probe/open", json={"productId": "canary-value", "extraField": "canary-value"})
    document = assert_problem(response, 422, "validation_error")
    assert document["errors"] == [
        {"field": "productId", "message": "Input should be a valid integer", "code": "int_type"},
        {"field": "extraField", "message": "Extra inputs are not permitted", "code": "extra_forbidden"},
    ]
    assert "canary" not in response.text


async def test_another_content_type_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/probe/open", content=b"a=b", headers={"content-type": "text/plain"})
    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("number", ["abc", "1.5", "9" * 5000])
async def test_an_id_that_cannot_exist_is_not_found(client: httpx.AsyncClient, number: str) -> None:
    assert_problem(await client.get(f"/api/probe/items/{number}"), 404, "not_found")


async def test_a_body_announced_too_big_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/probe/open", content=b"x" * (256 * 1024 + 1))
    assert_problem(response, 413, "body_too_large")


async def test_a_body_that_grows_too_big_is_refused_on_the_way(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 64 * 1024
            yield b"x" * 64 * 1024

    response = await client.post("/api/probe/open", content=endless(), headers={"content-type": "application/json"})
    assert_problem(response, 413, "body_too_large")
    assert sent <= 24 * 64 * 1024  # the limit, and what is thrown away so that the answer can be read


async def test_headers_that_are_too_large_are_refused(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/health/live", headers={"x-long": "x" * 1_000_000}), 431, "headers_too_large")


async def test_a_bug_is_answered_without_its_stack_and_logged_with_it(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    configure_logging(make_settings(tmp_path), "test")
    response = await client.get("/api/probe/bug", headers={"traceparent": TRACEPARENT, "x-request-id": "mine-1"})
    document = assert_problem(response, 500, "internal_error")
    assert "KeyError" not in response.text
    assert document["traceId"] == TRACE_ID
    assert response.headers["x-request-id"] == "mine-1"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (logged,) = [line for line in lines if line["level"] == "ERROR"]
    assert logged["trace_id"] == TRACE_ID
    assert logged["request_id"] == "mine-1"
    assert "in bug" in logged["exception"]
    assert "canary" not in json.dumps(lines)
    (access,) = [line for line in lines if line["message"].startswith("GET /api/probe/bug 500")]
    assert access["trace_id"] == TRACE_ID


async def test_a_database_that_is_down_is_503_and_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/probe/database")
    assert_problem(response, 503, "dependency_unavailable")
    assert response.headers["retry-after"] == "2"
    assert "127.0.0.1" not in response.text


async def test_a_refusal_keeps_its_code_and_its_extras(client: httpx.AsyncClient) -> None:
    document = assert_problem(await client.get("/api/probe/conflict"), 409, "out_of_stock")
    assert document["availableUnits"] == 3
    response = await client.get("/api/probe/busy")
    assert_problem(response, 429, "too_many_requests")
    assert response.headers["retry-after"] == "7"


async def test_a_refusal_that_knows_its_order_says_where_it_is(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/probe/in-flight")
    document = assert_problem(response, 409, "idempotency_in_progress")
    assert document["orderId"] == "an-order"
    assert response.headers["location"] == "/api/orders/an-order"
    assert response.headers["retry-after"] == "1"


async def test_every_answer_bears_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/api/nowhere", "/docs"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (await client.get("/api/probe/items/1")).headers["cache-control"] == "no-store"


async def test_liveness_needs_nothing_and_readiness_names_what_is_missing(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "alive"}
    response = await client.get("/health/ready")
    assert response.status_code == 503
    found = response.json()
    assert found["status"] == "unavailable"
    names = {f"postgres:{service.value}" for service in Service} | {"valkey", "temporal"}
    assert found["dependencies"].keys() == names
    assert {dependency["status"] for dependency in found["dependencies"].values()} == {"down"}


async def test_metrics_count_by_route_and_outlive_the_database(client: httpx.AsyncClient) -> None:
    await client.get("/api/probe/items/71")
    await client.get("/api/stranger/71")
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert 'http_requests_total{method="GET",route="/api/probe/items/{number}",status="200"}' in response.text
    assert 'route="unmatched"' in response.text
    assert "/71" not in response.text
    assert "mercato_sse_streams" in response.text


async def test_every_documented_operation_names_its_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert "HTTPValidationError" not in json.dumps(document)
    guarded_operation = document["paths"]["/api/probe/guarded"]["post"]
    assert guarded_operation["security"] == [{"bearer": []}, {"cookie": []}]
    assert guarded_operation["responses"].keys() >= {"401", "403", "409", "413", "422", "503"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert not path.startswith("/api/") or "503" in operation["responses"]
    example = document["components"]["responses"]["Problem422"]["content"]["application/problem+json"]["example"]
    assert example["errors"]


def test_no_route_takes_a_thread(tmp_path: Path) -> None:
    """A dependency that is no coroutine is run in another thread, which costs more than most of what it would do."""
    routes = [context.original_route for context in iter_route_contexts(create_app(make_settings(tmp_path)).routes)]
    waiting = [route.dependant for route in routes if isinstance(route, APIRoute)]
    calls = set()
    while waiting:
        dependant = waiting.pop()
        calls.add(dependant.call)
        waiting += dependant.dependencies
    assert len(calls) > 50
    assert [call for call in calls if not (iscoroutinefunction(call) or isasyncgenfunction(call))] == []


@pytest.mark.parametrize("service", Service)
def test_a_service_alone_describes_the_whole_api(tmp_path: Path, service: Service) -> None:
    settings = make_settings(tmp_path)
    assert create_app(settings, (service,)).openapi() == create_app(settings).openapi()


async def test_the_docs_page_loads_from_this_server_alone(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "//" not in page.replace("<!doctype html>", "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/assets/{name}" in page
        assert (await client.get(f"/docs/assets/{name}")).status_code == 200
    assert_problem(await client.get("/docs/assets/secret.txt"), 404, "not_found")


async def test_production_shows_no_docs_and_metrics_on_their_own_port_only(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, metrics_port=9100).model_copy(update={"environment": "production"})
    async with client_of(create_app(settings, (Service.CATALOG,))) as client:
        for path in ("/docs", "/openapi.json", "/metrics"):
            assert (await client.get(path)).status_code == 404


async def test_without_valkey_it_is_ready_but_degraded(
    tmp_path: Path, database_url: str, temporal_address: str
) -> None:
    settings = make_settings(tmp_path).model_copy(
        update={"database_url": database_url, "temporal_address": temporal_address}
    )
    async with client_of(create_app(settings, (Service.ORDERS,))) as client:
        response = await client.get("/health/ready")
        assert response.status_code == 200
        found = response.json()
        assert found["status"] == "degraded"
        assert {name: each["status"] for name, each in found["dependencies"].items()} == {
            "postgres:orders": "up",
            "valkey": "down",
            "temporal": "up",
        }
        scraped = (await client.get("/metrics")).text
        assert 'mercato_orders{status="confirmed"}' in scraped
        assert "mercato_oldest_open_order_age_seconds" in scraped


PROGRAM = """
import asyncio, socket, sys
from api.main import serve
from core.settings import Settings
from models.types import Service

asyncio.run(serve(Settings(), (Service.CATALOG,), "127.0.0.1", int(sys.argv[1])))
print("ended")
"""


async def test_a_service_alone_starts_without_its_dependencies_and_ends_on_sigterm(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "MERCATO_DATABASE_URL": "postgresql://mercato:none@127.0.0.1:1/none",
        "MERCATO_REDIS_URL": "redis://127.0.0.1:1/0",
        "MERCATO_DATA_DIR": str(tmp_path),
        "MERCATO_VERIFY_KEY": "",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(port), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    first = json.loads(await process.stdout.readline())
    assert first["service"] == "catalog"
    async with asyncio.timeout(20):
        while b"Uvicorn running" not in await process.stdout.readline():
            pass
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/health/live")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    await _assert_kept_while_idle(port)
    process.terminate()
    async with asyncio.timeout(4):
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.splitlines()[-1] == b"ended"


async def _assert_kept_while_idle(port: int) -> None:
    """The server does not hang up first: a client that keeps idle connections for 5 s, as httpx does, could meet that
    with a POST, which is lost then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), timeout=6)
    writer.close()
