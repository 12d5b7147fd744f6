"""How long an idempotency key is kept in flight: until its request is answered, no longer and no shorter."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import Request
from sqlalchemy import text

from api import checkouts
from api import orders as routes
from api.auth import Principal
from api.deps import Resources
from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.messages import CheckoutInput
from models.types import Role, Service, uuid7
from services import orders, placing
from tests import order_log


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(Settings(database_url=database_url).service_database_url(Service.ORDERS))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture
def resources(sessions: Sessions) -> Resources:
    nothing: Any = None
    settings = Settings(environment="test")
    return Resources(
        settings, {Service.ORDERS: sessions}, nothing, nothing, nothing, nothing, nothing, nothing, nothing
    )


@pytest.fixture
def user() -> Principal:
    return Principal(uuid4(), uuid4(), Role.SHOPPER)


def _post(path: str) -> Request:
    return Request({"type": "http", "method": "POST", "path": path})


async def _in_flight(sessions: Sessions, user_id: UUID) -> bool:
    query = text("SELECT coalesce(in_flight_until > now(), false) FROM orders.idempotency_keys WHERE user_id = :user")
    async with sessions() as session:
        return bool((await (await session.connection()).execute(query, {"user": user_id})).scalar_one())


async def test_a_placement_that_breaks_lets_its_key_go(
    resources: Resources, sessions: Sessions, user: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(checkouts, "start", broken)
    body = routes.PlaceOrder.model_validate({"paymentMethodId": "pm_card_visa"})
    with pytest.raises(ConnectionResetError):
        await routes.place(_post("/api/orders/place"), user, "a-key", 0, resources, body)
    assert not await _in_flight(sessions, user.user_id)


async def test_a_card_s_key_is_let_go_once(
    resources: Resources, sessions: Sessions, user: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let go twice, it would be taken out of the hands of the repeat that came between."""
    seen: list[bool] = []
    release = placing.release

    async def watched(session: Any, key: placing.RequestKey) -> None:
        seen.append(await _in_flight(sessions, user.user_id))
        await release(session, key)

    async def answered(*_: object) -> bool:
        return True

    checkout = CheckoutInput(order_id=uuid7(), customer_id=uuid4(), payment_method_id="pm_card_chargeDeclined")
    async with sessions() as session:
        await order_log.place(session, checkout)
        await orders.record_declined(session, checkout.order_id, 1, "insufficient_funds", None)
        order = await orders.get(session, checkout.order_id)
    monkeypatch.setattr(placing, "release", watched)
    monkeypatch.setattr(checkouts, "send_card", answered)
    body = routes.PayOrder.model_validate({"paymentMethodId": "pm_card_visa"})
    with pytest.raises(routes.PaymentRequired):
        await routes.pay(_post(f"/api/orders/{order.id}/payment"), user, order, "a-key", 0, resources, body)
    assert seen == [True]
    assert not await _in_flight(sessions, user.user_id)


async def test_a_key_that_runs_out_between_two_looks_is_not_bound_to_an_order_that_is_not_there(
    resources: Resources, sessions: Sessions, user: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, placed = placing.place, []

    async def then_it_runs_out(
        session: Any, request: placing.RequestKey, checkout: CheckoutInput, **given: Any
    ) -> bool:
        placed.append(await place(session, request, checkout, **given))
        query = text("UPDATE orders.idempotency_keys SET expires_at = now() - interval '1 s' WHERE user_id = :user")
        await (await session.connection()).execute(query, {"user": user.user_id})
        return placed[-1]

    async def started(*_: object) -> None:
        pass

    monkeypatch.setattr(checkouts, "start", started)
    body = routes.PlaceOrder.model_validate({"paymentMethodId": "pm_card_visa"})
    first = await routes.place(_post("/api/orders/place"), user, "a-key", 0, resources, body)
    monkeypatch.setattr(placing, "place", then_it_runs_out)
    second = await routes.place(_post("/api/orders/place"), user, "a-key", 0, resources, body)
    assert placed == [False]
    assert second.headers["Location"] == first.headers["Location"]
