"""What docker-compose.yml starts is a shop: its programs with its settings, in production, behind its gateway."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import AuthenticationError

from cli.check import check_invariants
from core.redis import make_redis
from tests.deploy.scripts import run_script
from tests.deploy.stack import ComposedStack
from tests.e2e.shop import browser
from tests.e2e.shopper import Shopper
from tests.stack import HOST, Stack

ADMIN, PASSWORD = "owner@mercato.test", "an attic full of lamps"


@pytest.fixture(scope="module")
async def composed(stack: Stack, services: Mapping[str, dict[str, Any]]) -> AsyncIterator[ComposedStack]:
    namespace = f"composed-{uuid4().hex}"
    where = {"TEMPORAL_ADDRESS": stack.temporal_address, "TEMPORAL_NAMESPACE": namespace}
    made = await run_script("temporal/namespace.sh", **where)
    assert made.returncode == 0, made.stderr
    async with ComposedStack.running(stack, services, namespace) as composed:
        yield composed


async def test_somebody_buys_and_the_first_member_of_staff_sees_it(composed: ComposedStack) -> None:
    await composed.run_job("users", "staff", ADMIN, "--role", "admin", typed=f"{PASSWORD}\n")
    async with composed.gateway() as gateway, browser(gateway.url) as door:
        shopper = await Shopper.registered(door)
        product = (await shopper.get("/api/products")).json()["items"][0]["id"]
        await shopper.add(product)
        placed = await shopper.place()
        assert placed.status_code == 201, placed.text
        order_id = placed.json()["id"]
        await shopper.until(order_id, paymentStatus="captured")
        admin = await Shopper.signed_in(door, ADMIN, PASSWORD)
        assert [order["id"] for order in (await admin.get("/api/orders")).json()["items"]] == [order_id]
        for path in ("/docs", "/openapi.json"):
            assert (await door.get(path)).status_code == 404  # as production has it without MERCATO_DOCS
    report = await check_invariants(composed.owners_settings())
    assert report.exit_code == 0, report


async def test_valkey_asks_for_the_password(composed: ComposedStack) -> None:
    stranger = make_redis(f"redis://{HOST}:{composed.places['valkey']}/0")
    with pytest.raises(AuthenticationError):
        await stranger.get("anything")
    await stranger.aclose()
