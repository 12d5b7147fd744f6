"""What no run looks after is found and mended: checkouts never started, terminated, reset; overdue stock (R19, R33)."""

import asyncio
from typing import Any
from uuid import uuid4

import temporalio.api.workflowservice.v1 as service
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter

from core.db import make_engine, make_sessions
from core.settings import derived_role_url
from services import inventory
from tests.chaos.shop import STOCK, Shop
from tests.e2e.shopper import eventually
from tests.stack import Platform


async def _temporal(platform: Platform) -> Client:
    return await Client.connect(platform.temporal_address, data_converter=pydantic_data_converter)


async def _checkout(platform: Platform, order_id: str) -> WorkflowHandle[Any, Any]:
    return (await _temporal(platform)).get_workflow_handle(f"checkout-{order_id}")


async def test_an_order_whose_checkout_was_never_started_is_started(arena: Platform, shop: Shop) -> None:
    cut_off = await asyncio.to_thread(_api_without_temporal, arena)
    product, headers = await shop.product(), await shop.shopper()
    placed = await shop.place(headers, product, via=cut_off.base_url)
    assert (placed.status_code, placed.json()["code"]) == (503, "dependency_unavailable")
    assert "Retry-After" in placed.headers
    order_id = placed.json()["orderId"]
    await shop.until(headers, order_id, status="confirmed", paymentStatus="captured")
    assert len(await shop.books(order_id)) == 1
    await cut_off.stop()


async def test_a_terminated_waiting_order_is_undone(arena: Platform, shop: Shop) -> None:
    product, headers = await shop.product(), await shop.shopper()
    placed = await shop.place(headers, product, paymentMethodId="pm_card_chargeDeclined")
    order_id = placed.json()["orderId"]
    await shop.until(headers, order_id, status="action_required")
    assert await shop.stock(product) == (STOCK, 2)
    await (await _checkout(arena, order_id)).terminate("somebody pressed the wrong button")
    await shop.until(headers, order_id, status="cancelled")
    assert await shop.stock(product) == (STOCK, 0)
    cart = await shop.http.get("/api/cart", headers=headers)
    assert cart.json()["lines"][0]["quantity"] == 2


async def test_a_terminated_confirmed_order_is_brought_to_its_end(arena: Platform, shop: Shop) -> None:
    product, headers = await shop.product(), await shop.shopper()
    await shop.fault(mode="error_500", operations=["capture"])
    try:
        order_id = (await shop.place(headers, product)).json()["orderId"]
        await shop.until(headers, order_id, status="confirmed")
        await (await _checkout(arena, order_id)).terminate("the wrong button again")
    finally:
        await shop.no_faults()
    await shop.until(headers, order_id, paymentStatus="captured")
    (intent,) = await shop.books(order_id)
    assert intent["captured"] == 5000


async def test_a_reset_checkout_charges_nobody_twice(arena: Platform, shop: Shop) -> None:
    product, headers = await shop.product(), await shop.shopper()
    order_id = (await shop.place(headers, product)).json()["orderId"]
    await shop.until(headers, order_id, status="confirmed", paymentStatus="captured")
    client = await _temporal(arena)
    checkout = client.get_workflow_handle(f"checkout-{order_id}")
    await checkout.result()
    await client.workflow_service.reset_workflow_execution(
        service.ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=checkout.id),
            reason="try it again from the start",
            workflow_task_finish_event_id=3,
            request_id=uuid4().hex,
        )
    )
    again = await client.get_workflow_handle(checkout.id).result()
    assert again["status"] == "confirmed"
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["charges"]) == (5000, 1)
    assert await shop.stock(product) == (STOCK - 2, 0)


async def test_stock_held_past_its_time_for_no_living_order_goes_back(arena: Platform, shop: Shop) -> None:
    product = await shop.product()
    engine = make_engine(derived_role_url(arena.owner_url, "mercato_catalog"))
    async with make_sessions(engine).begin() as session:
        held = await inventory.reserve(session, uuid4(), {product: 3}, 1)
    await engine.dispose()
    assert held.expires_at is not None
    assert await shop.stock(product) == (STOCK, 3)

    async def given_back() -> bool:
        return await shop.stock(product) == (STOCK, 0)

    await eventually(given_back)


async def test_clearing_the_cart_fails_for_long_and_the_order_stands(arena: Platform, shop: Shop) -> None:
    """R28: forward recovery; the shopper is charged once and staff are told."""
    product, headers = await shop.product(), await shop.shopper()
    await shop.database.execute("REVOKE UPDATE ON carts.claims FROM mercato_carts")
    try:
        order_id = (await shop.place(headers, product)).json()["orderId"]
        order = await shop.until(headers, order_id, status="confirmed", paymentStatus="captured", needsAttention=True)
    finally:
        await shop.database.execute("GRANT UPDATE ON carts.claims TO mercato_carts")
    assert order["status"] == "confirmed"
    await shop.until(headers, order_id, needsAttention=False)

    async def cart_is_empty() -> bool:
        cart = await shop.http.get("/api/cart", headers=headers)
        return not cart.json()["lines"]

    await eventually(cart_is_empty)
    (intent,) = await shop.books(order_id)
    assert (intent["captured"], intent["charges"]) == (5000, 1)


async def test_an_undo_that_fails_for_long_is_told_and_completes_after_healing(arena: Platform, shop: Shop) -> None:
    """R29: stock cannot be given back for a while."""
    product, headers = await shop.product(), await shop.shopper()
    placed = await shop.place(headers, product, paymentMethodId="pm_card_chargeDeclined")
    order_id = placed.json()["orderId"]
    await shop.until(headers, order_id, status="action_required")
    await shop.database.execute("REVOKE UPDATE ON catalog.reservations FROM mercato_catalog")
    try:
        cancelled = await shop.http.post(
            f"/api/orders/{order_id}/cancel",
            json={"reason": "changed my mind"},
            headers={**headers, "Idempotency-Key": uuid4().hex, "Prefer": "wait=1"},
        )
        assert cancelled.status_code == 202
        await shop.until(headers, order_id, needsAttention=True)
        assert await shop.stock(product) == (STOCK, 2)
    finally:
        await shop.database.execute("GRANT UPDATE ON catalog.reservations TO mercato_catalog")
    await shop.until(headers, order_id, status="cancelled", needsAttention=False)
    assert await shop.stock(product) == (STOCK, 0)


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()


def _api_without_temporal(platform: Platform) -> Any:
    """An API that cannot reach Temporal: it takes the order and cannot start it."""
    return platform.start_api(env={"MERCATO_TEMPORAL_ADDRESS": "127.0.0.1:9"}, ready="/health/live")
