"""Events reach whoever listens: signed, at least once, again until somebody takes them; also after a restart."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stripe

from tests.processor.process import running
from tests.processor.receiver import Receiver

HELD = {"amount": 2500, "currency": "eur", "capture_method": "manual", "allowed_payment_method_types": ["card"]}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


@pytest.fixture
def listen(client: stripe.StripeClient, receiver: Receiver) -> Iterator[Any]:
    """`listen("type", ...)` makes an endpoint and gives its secret."""
    made: list[str] = []

    def make(*types: str) -> str:
        endpoint = client.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": types or ["*"]})
        made.append(endpoint.id)
        secret: str = endpoint.secret
        return secret

    yield make
    for endpoint in made:
        client.v1.webhook_endpoints.delete(endpoint)


def _held(client: stripe.StripeClient, order: str = "7") -> stripe.PaymentIntent:
    intent = client.v1.payment_intents.create({**HELD, "metadata": {"order_id": order}})
    return client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa", "return_url": "http://a.b"})


async def test_an_ordinary_payment_is_told_as_it_goes(client: Any, receiver: Receiver, listen: Any) -> None:
    secret = listen()
    intent = _held(client)
    client.v1.payment_intents.capture(intent.id)
    client.v1.refunds.create({"payment_intent": intent.id})
    await receiver.arrived(6)
    events = receiver.events(secret)
    assert sorted(event.type for event in events) == [
        "charge.refunded",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "payment_intent.created",
        "payment_intent.succeeded",
        "refund.created",
    ]
    (held,) = [event for event in events if event.type == "payment_intent.amount_capturable_updated"]
    assert (held.data.object.id, held.data.object.status) == (intent.id, "requires_capture")
    assert held.data.object.metadata["order_id"] == "7"
    assert client.v1.events.retrieve(held.id).data.object.id == intent.id


async def test_only_what_is_listened_to_is_told(client: Any, receiver: Receiver, listen: Any) -> None:
    secret = listen("payment_intent.succeeded")
    client.v1.payment_intents.capture(_held(client).id)
    await receiver.arrived(1)
    assert [event.type for event in receiver.events(secret)] == ["payment_intent.succeeded"]
    assert [event.type for event in client.v1.events.list().data] == ["payment_intent.succeeded"]


async def test_what_nobody_takes_is_told_again_with_a_new_signature(
    client: Any, receiver: Receiver, listen: Any
) -> None:
    secret = listen("payment_intent.canceled")
    receiver.answers = [500, 302]
    client.v1.payment_intents.cancel(client.v1.payment_intents.create(HELD).id)
    await receiver.arrived(3)
    assert len({event.id for event in receiver.events(secret)}) == 1
    assert len({signature for _, signature in receiver.received}) == 3


@pytest.mark.parametrize("verdict", ["complete", "fail"])
async def test_the_end_of_a_challenge_is_told(
    client: Any, http: httpx.AsyncClient, receiver: Receiver, listen: Any, verdict: str
) -> None:
    secret = listen("payment_intent.amount_capturable_updated", "payment_intent.payment_failed")
    intent = client.v1.payment_intents.create(HELD)
    waiting = client.v1.payment_intents.confirm(
        intent.id, {"payment_method": "pm_card_authenticationRequired", "return_url": "http://shop.test/back"}
    )
    page = httpx.URL(waiting.next_action.redirect_to_url.url)
    for _ in range(2):  # a second click is harmless
        assert (await http.post(f"{page.path}/{verdict}", params=page.params)).status_code in (200, 303)
    await receiver.arrived(1)
    told = {"complete": "payment_intent.amount_capturable_updated", "fail": "payment_intent.payment_failed"}
    assert [event.type for event in receiver.events(secret)] == [told[verdict]]


async def test_a_processor_that_dies_before_it_has_told_tells_after_its_restart(
    platform_database_url: str, receiver: Receiver
) -> None:
    key, secret = "sk_test_restarted", "whsec_restarted"
    told = ("--webhook-url", receiver.url, "--webhook-secret", secret, "--webhook-account", key)
    types = ("--webhook-events", "payment_intent.canceled")
    with running(platform_database_url, *told, *types, "--webhook-delay", "600") as (url, _):
        client = stripe.StripeClient(key, base_addresses={"api": url})
        client.v1.payment_intents.cancel(client.v1.payment_intents.create(HELD).id)
    assert not receiver.received
    with running(platform_database_url, *told, *types) as (url, _):
        client = stripe.StripeClient(key, base_addresses={"api": url})
        client.v1.payment_intents.cancel(client.v1.payment_intents.create(HELD).id)
        await receiver.arrived(1)
        assert [event.type for event in receiver.events(secret)] == ["payment_intent.canceled"]


async def test_events_are_lost_late_or_doubled_when_that_is_asked_for(
    client: Any, receiver: Receiver, listen: Any, http: httpx.AsyncClient
) -> None:
    secret = listen("payment_intent.canceled")
    faults = [
        {"mode": "webhook_lost", "times": 1, "order_id": "lost"},
        {"mode": "webhook_late", "times": 1, "order_id": "late", "seconds": 2},
        {"mode": "webhook_duplicate", "times": 1, "order_id": "doubled"},
    ]
    (await http.put("/test/faults", json=faults)).raise_for_status()
    for order in ("late", "lost", "doubled", "plain"):
        intent = client.v1.payment_intents.create({**HELD, "metadata": {"order_id": order}})
        client.v1.payment_intents.cancel(intent.id)
    await receiver.arrived(4)
    told = [event.data.object.metadata["order_id"] for event in receiver.events(secret)]
    assert sorted(told) == ["doubled", "doubled", "late", "plain"]
    assert told[-1] == "late"
    assert len({signature for _, signature in receiver.received}) == 4


def test_a_faulty_processor_charges_twice_when_that_is_asked_for(client: Any, arm: Any, books: Any) -> None:
    arm(mode="success_twice", times=1)
    intent = _held(client, "twice")
    first, second = books("twice")
    assert intent.id in (first["id"], second["id"])
    assert first["amount_authorized_open"] == second["amount_authorized_open"] == 2500
    client.v1.payment_intents.cancel(next(book["id"] for book in (first, second) if book["id"] != intent.id))
    client.v1.payment_intents.capture(intent.id)
    assert sorted((book["captured"], book["amount_authorized_open"]) for book in books("twice")) == [(0, 0), (2500, 0)]


def test_a_faulty_processor_says_another_amount_when_that_is_asked_for(client: Any, arm: Any, books: Any) -> None:
    arm(mode="wrong_amount", times=1, operations=["confirm"])
    assert _held(client, "wrong").amount == 2501
    (book,) = books("wrong")
    assert book["amount_authorized_open"] == 2500
