import asyncio

import asyncpg
import httpx
import pytest
import stripe

HELD = {"amount": 1000, "currency": "EUR", "capture_method": "manual", "payment_method": "pm_card_visa"}
# fmt: off
DOCUMENTED = {
    "id", "object", "amount", "amount_capturable", "amount_details", "amount_received", "application",
    "application_fee_amount", "automatic_payment_methods", "canceled_at", "cancellation_reason", "capture_method",
    "client_secret", "confirmation_method", "created", "currency", "customer", "customer_account", "description",
    "excluded_payment_method_types", "last_payment_error", "latest_charge", "livemode", "managed_payments",
    "metadata", "next_action", "on_behalf_of", "payment_method", "payment_method_configuration_details",
    "payment_method_options", "payment_method_types", "processing", "receipt_email", "review", "setup_future_usage",
    "shipping", "source", "statement_descriptor", "statement_descriptor_suffix", "status", "transfer_data",
    "transfer_group",
}
# fmt: on


def test_every_documented_member_is_there_from_the_start(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "usd"})
    assert set(intent.to_dict()) == DOCUMENTED
    assert intent.status == "requires_payment_method"
    assert intent.client_secret.startswith(f"{intent.id}_secret_")
    assert intent.currency == "usd"
    assert intent.latest_charge is None
    assert client.v1.payment_intents.retrieve(intent.id).to_dict() == intent.to_dict()


def test_a_held_amount_is_captured_in_part_and_the_rest_let_go(client, books):
    intent = client.v1.payment_intents.create({**HELD, "confirm": True, "metadata": {"order_id": "7"}})
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 1000, 0)
    assert books("7")[0]["amount_authorized_open"] == 1000
    intent = client.v1.payment_intents.capture(intent.id, {"amount_to_capture": 700, "expand": ["latest_charge"]})
    assert (intent.status, intent.amount, intent.amount_capturable, intent.amount_received) == (
        "succeeded",
        1000,
        0,
        700,
    )
    assert (intent.latest_charge.captured, intent.latest_charge.amount_captured) == (True, 700)
    [row] = books("7")
    assert row == {
        "id": intent.id,
        "metadata": {"order_id": "7"},
        "status": "succeeded",
        "currency": "eur",
        "amount": 1000,
        "amount_authorized_open": 0,
        "captured": 700,
        "refunded": 0,
        "charges": 1,
        "attempts": 1,
    }


def test_automatic_capture_takes_the_money_at_once(client, books):
    intent = client.v1.payment_intents.create(
        {"amount": 500, "currency": "usd", "payment_method": "pm_card_mastercard", "confirm": True}
    )
    assert (intent.status, intent.amount_received, intent.capture_method) == ("succeeded", 500, "automatic_async")
    assert books()[0]["captured"] == 500


def test_created_first_and_confirmed_later_with_an_expanded_charge(client):
    intent = client.v1.payment_intents.create(HELD)
    assert intent.status == "requires_confirmation"
    intent = client.v1.payment_intents.confirm(intent.id, {"expand": ["latest_charge", "payment_method"]})
    charge = intent.latest_charge
    assert (charge.paid, charge.captured, charge.status, charge.amount_captured) == (True, False, "succeeded", 0)
    assert charge.outcome.type == "authorized"
    assert intent.payment_method.card.last4 == "4242"
    assert client.v1.charges.retrieve(charge.id, {"expand": ["payment_intent"]}).payment_intent.id == intent.id


def test_cancel_lets_go_and_cannot_be_repeated_under_another_key(client, books):
    intent = client.v1.payment_intents.create({**HELD, "confirm": True})
    gone = client.v1.payment_intents.cancel(intent.id, {"cancellation_reason": "requested_by_customer"})
    assert (gone.status, gone.cancellation_reason, gone.amount_capturable) == ("canceled", "requested_by_customer", 0)
    assert gone.canceled_at
    assert (books()[0]["amount_authorized_open"], books()[0]["charges"]) == (0, 0)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.cancel(intent.id)
    assert refusal.value.code == "payment_intent_unexpected_state"
    assert refusal.value.error.payment_intent.status == "canceled"


def test_steps_out_of_turn_are_refused_with_the_intent(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "usd"})
    intents = client.v1.payment_intents
    for step in (intents.capture, intents.confirm):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            step(intent.id)
        assert refusal.value.code == "payment_intent_unexpected_state"
        assert refusal.value.error.payment_intent.id == intent.id
    intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    for step in (intents.capture, intents.confirm, intents.cancel):
        with pytest.raises(stripe.InvalidRequestError, match=r"already|status of succeeded"):
            step(intent.id)


def test_more_than_is_held_cannot_be_captured(client, books):
    intent = client.v1.payment_intents.create({**HELD, "confirm": True})
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.capture(intent.id, {"amount_to_capture": 1001})
    assert refusal.value.code == "amount_too_large"
    assert books()[0]["amount_authorized_open"] == 1000


def test_update_merges_metadata_and_reprices(client):
    intent = client.v1.payment_intents.create(
        {"amount": 1000, "currency": "usd", "metadata": {"1": "one", "b": "2"}, "description": "d"}
    )
    changed = client.v1.payment_intents.update(
        intent.id, {"amount": 1200, "metadata": {"b": "", "c": "3"}, "description": ""}
    )
    assert changed.amount == 1200
    assert changed.metadata.to_dict() == {"1": "one", "c": "3"}
    assert changed.description is None
    chosen = client.v1.payment_intents.update(intent.id, {"payment_method": "pm_card_visa", "metadata": ""})
    assert (chosen.status, chosen.metadata.to_dict()) == ("requires_confirmation", {})
    client.v1.payment_intents.confirm(intent.id)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.update(intent.id, {"amount": 1300})
    assert (refusal.value.code, refusal.value.param) == ("payment_intent_unexpected_state", "amount")


def test_the_asynchronous_client_goes_the_whole_way(account):
    async def whole_way() -> str:
        client = account.client(retries=2)
        intent = await client.v1.payment_intents.create_async({**HELD, "confirm": True})
        intent = await client.v1.payment_intents.capture_async(intent.id)
        refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
        found = await client.v1.payment_intents.list_async({"limit": 1})
        assert [one.id for one in found.data] == [intent.id]
        return str(refund.status)

    assert asyncio.run(whole_way()) == "succeeded"


def test_parallel_writes_on_one_intent_capture_once(account, books):
    intent = account.client().v1.payment_intents.create({**HELD, "confirm": True})

    async def race() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=account.url, headers=account.headers) as http:
            path = f"/v1/payment_intents/{intent.id}/capture"
            return await asyncio.gather(*(http.post(path) for _ in range(8)))

    replies = asyncio.run(race())
    assert [reply.status_code for reply in replies].count(200) == 1
    for reply in replies:
        if reply.status_code == 429:
            assert reply.json()["error"]["code"] == "lock_timeout"
            assert reply.headers["stripe-should-retry"] == "true"
        elif reply.status_code != 200:
            assert reply.json()["error"]["code"] == "payment_intent_unexpected_state"
    assert books()[0]["captured"] == 1000


async def test_a_locked_intent_answers_lock_timeout_and_leaves_the_key_free(http, platform_database_url):
    intent = (await http.post("/v1/payment_intents", data={"amount": 1000, "currency": "usd"})).json()
    path, headers = f"/v1/payment_intents/{intent['id']}/cancel", {"Idempotency-Key": "cancel"}
    other = await asyncpg.connect(platform_database_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM processor.payment_intent WHERE id = $1 FOR UPDATE", intent["id"])
        reply = await http.post(path, headers=headers)
    await other.close()
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "lock_timeout")
    assert reply.headers["stripe-should-retry"] == "true"
    assert (await http.post(path, headers=headers)).json()["status"] == "canceled"
