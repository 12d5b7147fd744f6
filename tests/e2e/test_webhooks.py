"""The processor's word by webhook: it wakes whoever waits, is believed in nothing, and changes nothing twice."""

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from processor.webhooks import signature
from tests.e2e.shop import PRICE, Shop
from tests.e2e.shopper import Shopper, eventually, problem

CHALLENGED = "pm_card_authenticationRequired"
HELD = "payment_intent.amount_capturable_updated"
PATH = "/api/payments/webhook"


def _secret(shop: Shop) -> str:
    return shop.platform.env["MERCATO_WEBHOOK_SECRET"]


def _event(type_: str = HELD, intent: str = "pi_unknown", event: str = "") -> bytes:
    thing = {"id": intent, "object": "payment_intent", "status": "requires_capture", "metadata": {}}
    body = {"id": event or f"evt_{uuid4().hex}", "object": "event", "type": type_, "created": int(time.time())}
    return json.dumps({**body, "data": {"object": thing}}).encode()


async def _send(shop: Shop, body: bytes, at: float | None = None, secret: str = "") -> httpx.Response:
    signed = signature(body.decode(), secret or _secret(shop), int(at or time.time()))
    return await shop.http.post(PATH, content=body, headers={"Stripe-Signature": signed})


async def _events(shop: Shop, order_id: str) -> list[Any]:
    query = "SELECT * FROM payments.processor_events WHERE order_id = $1::uuid ORDER BY received_at"
    return list(await shop.database.fetch(query, order_id))


async def _waiting(shop: Shop) -> tuple[int, Shopper, Any]:
    """An order whose shopper has to authenticate."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    placed = await shopper.place(CHALLENGED)
    assert placed.status_code == 202, placed.text
    order = placed.json()
    assert (order["status"], order["paymentStatus"]) == ("action_required", "none")
    assert (order["actionRequired"]["type"], order["actionRequired"]["reason"]) == (
        "redirect",
        "authentication_required",
    )
    assert order["actionRequired"]["url"].startswith(shop.platform.processor_url)
    assert order["actionRequired"]["deadline"]
    return product, shopper, order


async def _authenticate(order: Any, verdict: str = "complete") -> httpx.Response:
    """What the shopper's browser does at the bank's page."""
    url = httpx.URL(order["actionRequired"]["url"])
    async with httpx.AsyncClient() as browser:
        page = await browser.get(url)
        assert page.status_code == 200
        assert "Is it you?" in page.text
        return await browser.post(url.copy_with(path=f"{url.path}/{verdict}"))


async def test_authenticating_at_the_bank_confirms_the_order(shop: Shop) -> None:
    product, shopper, order = await _waiting(shop)
    async with shopper.listen(f"/api/orders/{order['id']}/events") as stream:
        await stream.next()
        back = await _authenticate(order)
        assert back.status_code == 303
        assert f"/api/orders/{order['id']}?" in back.headers["location"]
        assert "redirect_status=succeeded" in back.headers["location"]
        told = [event.type for event in await stream.rest()]
    assert told == ["payment.authorized", "order.confirmed", "payment.captured"]
    await shop.charged_once(order["id"], 2 * PRICE)
    assert await shop.stock(product) == (8, 0)


async def test_failing_at_the_bank_waits_for_another_card(shop: Shop) -> None:
    product, shopper, order = await _waiting(shop)
    await _authenticate(order, "fail")
    declined = await shopper.until(order["id"], status="action_required", paymentStatus="declined")
    assert declined["actionRequired"]["reason"] == "payment_intent_authentication_failure"
    assert declined["actionRequired"]["type"] == "payment_method"
    assert (await shopper.pay(order["id"])).status_code == 201
    await shopper.until(order["id"], paymentStatus="captured")
    await shop.charged_once(order["id"], 2 * PRICE)
    assert await shop.stock(product) == (8, 0)


async def test_another_card_or_a_cancel_may_come_while_the_bank_waits(shop: Shop) -> None:
    product, shopper, order = await _waiting(shop)
    again = await shopper.pay(order["id"], CHALLENGED)
    assert again.status_code == 202, again.text
    assert again.json()["actionRequired"]["type"] == "redirect"
    cancelled = await shopper.cancel(order["id"])
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert await shop.stock(product) == (10, 0)
    await shop.nothing_charged(order["id"])


async def test_whoever_never_comes_back_loses_nothing_but_the_reservation(shop: Shop) -> None:
    api = await asyncio.to_thread(shop.platform.start_api, env={"MERCATO_RESERVATION_TTL_SECONDS": "6"})
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    async with httpx.AsyncClient(base_url=api.base_url, timeout=20) as hasty:
        placed = await shopper.at(hasty).place(CHALLENGED)
    order = placed.json()
    await shopper.until(order["id"], status="expired")
    assert await shop.stock(product) == (10, 0)
    url = httpx.URL(order["actionRequired"]["url"])
    async with httpx.AsyncClient() as browser:
        late = await browser.post(url.copy_with(path=f"{url.path}/complete"))
    assert late.status_code == 200
    await shop.nothing_charged(order["id"])
    await api.stop()


async def test_a_lost_reply_is_resolved_by_the_processors_word(shop: Shop) -> None:
    """R10: charged, and the answer lost; the processor can be asked again only after its word has come."""
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product, 2)
    await shop.fault(mode="reply_lost", operations=["confirm"], times=1)
    placed = await shopper.place(wait=0)
    order_id = placed.json()["orderId"]
    await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    await shop.charged_once(order_id, 2 * PRICE)
    assert await shop.stock(product) == (8, 0)


async def test_an_ordinary_order_is_told_once_and_wakes_nobody(shop: Shop) -> None:
    _, shopper = await shop.product(), await shop.shopper()
    product = await shop.product()
    await shopper.add(product)
    await shop.fault(mode="webhook_late", seconds=3)  # else it may overtake what we write down of the answer
    order_id = (await shopper.place()).json()["id"]

    async def told() -> Any:
        return await _events(shop, order_id)

    (event,) = await eventually(told)
    await shop.no_faults()
    assert (event["type"], event["deliveries"]) == (HELD, 1)
    assert event["handled_at"] == event["received_at"], "known already: nobody was to be told"


async def test_a_duplicate_changes_nothing_and_a_replay_is_refused(shop: Shop) -> None:
    _, shopper, order = await _waiting(shop)
    intent = (await shop.payment(order["id"]))["intentId"]
    body, now = _event(intent=intent), time.time()
    assert (await _send(shop, body, now)).status_code == 200
    problem(await _send(shop, body, now), 401, "webhook_replayed")
    for earlier in (1, 2, 3):
        assert (await _send(shop, body, now - earlier)).status_code == 200
    (kept,) = [event for event in await _events(shop, order["id"]) if event["type"] == HELD]
    assert kept["deliveries"] == 4
    order = await shopper.order(order["id"])
    assert order["status"] == "action_required", "what the event says is not believed"
    await shop.nothing_charged(order["id"])


async def test_events_out_of_order_and_long_after_change_nothing(shop: Shop) -> None:
    product, shopper = await shop.product(), await shop.shopper()
    await shopper.add(product)
    order_id = (await shopper.place()).json()["id"]
    before = await shopper.until(order_id, status="confirmed", paymentStatus="captured")
    intent = (await shop.payment(order_id))["intentId"]
    for type_ in ("payment_intent.payment_failed", "payment_intent.canceled", HELD, "charge.refunded"):
        assert (await _send(shop, _event(type_, intent))).status_code == 200
    assert await shopper.order(order_id) == before
    await shop.charged_once(order_id, PRICE)


@pytest.mark.parametrize("change", ["none", "wrong", "late", "other_body", "garbage", "not_ascii"])
async def test_a_bad_signature_is_refused(shop: Shop, change: str) -> None:
    body, now = _event(), int(time.time())
    good = signature(body.decode(), _secret(shop), now)
    headers = {
        "none": "",
        "wrong": signature(body.decode(), "whsec_other", now),
        "late": signature(body.decode(), _secret(shop), now - 301),
        "other_body": good,
        "garbage": "t=now,v1=deadbeef",
        "not_ascii": f"t={now},v1=é",
    }
    sent = _event() if change == "other_body" else body
    answer = await shop.http.post(PATH, content=sent, headers={"Stripe-Signature": headers[change].encode("latin-1")})
    problem(answer, 401, "webhook_signature_invalid")


async def test_what_is_signed_and_no_event_is_refused(shop: Shop) -> None:
    for body in (b"[]", b"{}", b'{"id": 1, "data": null}', b"no json"):
        problem(await _send(shop, body), 422, "validation_error")


async def test_an_event_about_an_unknown_intent_is_kept_for_reconciliation(shop: Shop) -> None:
    event = f"evt_{uuid4().hex}"
    assert (await _send(shop, _event(intent=f"pi_{uuid4().hex}", event=event))).status_code == 200
    row = await shop.database.fetchrow("SELECT * FROM payments.processor_events WHERE event_id = $1", event)
    assert row is not None
    assert (row["order_id"], row["handled_at"]) == (None, None)


async def test_without_temporal_the_event_is_sent_again_and_counts_then(shop: Shop) -> None:
    _, shopper, order = await _waiting(shop)
    intent = (await shop.payment(order["id"]))["intentId"]
    cut_off = await asyncio.to_thread(
        shop.platform.start_api, env={"MERCATO_TEMPORAL_ADDRESS": "127.0.0.1:9"}, ready="/health/live"
    )
    body, now = _event(intent=intent), int(time.time())
    async with httpx.AsyncClient(base_url=cut_off.base_url, timeout=20) as there:
        signed = signature(body.decode(), _secret(shop), now - 5)
        refused = await there.post(PATH, content=body, headers={"Stripe-Signature": signed})
    problem(refused, 503, "dependency_unavailable")
    assert "retry-after" in refused.headers
    (kept,) = [event for event in await _events(shop, order["id"]) if event["type"] == HELD]
    assert kept["handled_at"] is None
    assert (await _send(shop, body)).status_code == 200
    (kept,) = [event for event in await _events(shop, order["id"]) if event["type"] == HELD]
    assert kept["handled_at"] is not None
    await shopper.cancel(order["id"])
    await cut_off.stop()


async def test_afterwards_every_invariant_holds(shop: Shop) -> None:
    await shop.checked()
