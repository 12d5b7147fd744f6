"""Who may look at a payment, at notifications, and what they see."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from api.main import create_app
from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.types import Money, Service, uuid7
from services import notifications, payments
from services.processor import Processor

PASSWORD = "a quiet harbour at dawn"


@pytest.fixture(scope="module")
def settings(
    database_url: str, redis_url: str, processor_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return Settings(
        environment="test",
        data_dir=tmp_path_factory.mktemp("payments"),
        database_url=database_url,
        redis_url=redis_url,
        processor_url=processor_url,
        processor_api_key=SecretStr("sk_test_payments_api"),  # not the platform's: its books must not hold this money
        rate_limits="off",
    )


@pytest.fixture(scope="module")
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, [Service.USERS, Service.PAYMENTS, Service.NOTIFICATIONS])
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as client,
    ):
        yield client


@pytest.fixture(scope="module")
async def databases(settings: Settings) -> AsyncIterator[dict[Service, Sessions]]:
    services = (Service.PAYMENTS, Service.NOTIFICATIONS)
    engines = {service: make_engine(settings.service_database_url(service)) for service in services}
    yield {service: make_sessions(engine) for service, engine in engines.items()}
    for engine in engines.values():
        await engine.dispose()


async def signed_in(http: httpx.AsyncClient, settings: Settings, role: str = "shopper") -> tuple[UUID, dict[str, str]]:
    """A new account: (user id, headers)."""
    email = f"{uuid4().hex}@mercato.test"
    account = {"email": email, "password": PASSWORD, "fullName": "Ada L."}
    assert (await http.post("/api/auth/register", json=account)).status_code == 201
    owner = await asyncpg.connect(settings.database_url)
    await owner.execute("UPDATE users.users SET role = $1 WHERE email = $2", role, email)
    await owner.close()
    tokens = (await http.post("/api/auth/login", json={"email": email, "password": PASSWORD})).json()
    http.cookies.clear()  # who calls is said by the header alone
    return UUID(tokens["userId"]), {"Authorization": f"Bearer {tokens['accessToken']}"}


async def test_staff_see_payment_attempts_and_a_ledger_that_sums_to_zero(
    http: httpx.AsyncClient, settings: Settings, databases: dict[Service, Sessions]
) -> None:
    order_id, sessions, processor = uuid7(), databases[Service.PAYMENTS], Processor(settings)
    for attempt, card in enumerate(("pm_card_chargeDeclinedLostCard", "pm_card_visa"), start=1):
        await payments.authorize(
            sessions,
            processor,
            order_id=order_id,
            attempt=attempt,
            amount=Money(amount=2500),
            payment_method_id=card,
        )
    await payments.capture(sessions, processor, order_id=order_id)
    await processor.aclose()
    _, staff = await signed_in(http, settings, "support")
    answer = await http.get(f"/api/payments/{order_id}", headers=staff)
    assert answer.status_code == 200, answer.text
    payment = answer.json()
    assert payment["orderId"] == str(order_id)
    assert (payment["status"], payment["amount"]) == ("captured", {"amount": 2500, "currency": "EUR"})
    assert payment["intentId"].startswith("pi_")
    states = [(attempt["attempt"], attempt["state"], attempt["declineCode"]) for attempt in payment["attempts"]]
    assert states == [(1, "declined", "lost_card"), (2, "authorized", None)]
    assert [transaction["kind"] for transaction in payment["ledger"]] == ["authorize", "capture"]
    for transaction in payment["ledger"]:
        assert sum(entry["amount"] for entry in transaction["entries"]) == 0
    assert "pm_card" not in answer.text


async def test_only_staff_may_look_at_a_payment(http: httpx.AsyncClient, settings: Settings) -> None:
    path = f"/api/payments/{uuid7()}"
    assert (await http.get(path)).status_code == 401
    _, shopper = await signed_in(http, settings)
    assert (await http.get(path, headers=shopper)).status_code == 403
    _, staff = await signed_in(http, settings, "support")
    missing = await http.get(path, headers=staff)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (await http.get("/api/payments/nonsense", headers=staff)).status_code == 404
    assert (await http.get("/api/payments/nonsense", headers=shopper)).status_code == 403


async def test_my_notifications_come_in_pages_newest_first(
    http: httpx.AsyncClient, settings: Settings, databases: dict[Service, Sessions]
) -> None:
    user_id, mine = await signed_in(http, settings)
    _, other = await signed_in(http, settings)
    orders = [uuid7() for _ in range(3)]
    async with databases[Service.NOTIFICATIONS].begin() as session:
        for order_id in orders:
            await notifications.queue(
                session,
                order_id=order_id,
                customer_id=user_id,
                kind="order.confirmed",
                channel="email",
                data={"number": "AAAAA-AAAAA"},
            )
    first = (await http.get("/api/notifications", params={"limit": 2}, headers=mine)).json()
    rest = (await http.get("/api/notifications", params={"cursor": first["nextCursor"]}, headers=mine)).json()
    items = first["items"] + rest["items"]
    assert (len(first["items"]), len(items), rest["nextCursor"]) == (2, 3, None)
    assert {item["orderId"] for item in items} == {str(order_id) for order_id in orders}
    assert items[0]["kind"] == "order.confirmed"
    assert items[0]["state"] == "queued"
    assert (await http.get("/api/notifications", headers=other)).json() == {"items": [], "nextCursor": None}


async def test_bad_questions_for_notifications_are_refused(http: httpx.AsyncClient, settings: Settings) -> None:
    assert (await http.get("/api/notifications")).status_code == 401
    _, mine = await signed_in(http, settings)
    for query in ({"cursor": "nonsense"}, {"limit": "0"}, {"limit": "101"}, {"limit": "x"}):
        answer = await http.get("/api/notifications", params=query, headers=mine)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
