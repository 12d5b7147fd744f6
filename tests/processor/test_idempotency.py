import asyncio
from contextlib import suppress
from datetime import timedelta

import asyncpg
import httpx
import pytest
import stripe

PAY = {"amount": 1000, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
FORM = {"amount": "1000", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}


def test_a_repeat_gets_the_first_reply(client, books):
    options = {"idempotency_key": "pay-1"}
    first = client.v1.payment_intents.create(PAY, options)
    again = client.v1.payment_intents.create(PAY, options)
    assert again.to_dict() == first.to_dict()
    assert "idempotent-replayed" not in first.last_response.headers
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert first.last_response.headers["original-request"] == first.last_response.request_id
    assert again.last_response.headers["original-request"] == first.last_response.request_id
    assert again.last_response.request_id != first.last_response.request_id
    assert len(books()) == 1


def test_other_parameters_or_another_endpoint_are_refused(client):
    client.v1.payment_intents.create(PAY, {"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError, match="same parameters they were first used with") as refusal:
        client.v1.payment_intents.create({**PAY, "amount": 2000}, {"idempotency_key": "k"})
    assert refusal.value.code is None
    with pytest.raises(stripe.IdempotencyError, match="same endpoint they were first used for"):
        client.v1.refunds.create({"payment_intent": "pi_x"}, {"idempotency_key": "k"})


def test_a_decline_is_remembered_so_another_card_needs_another_key(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "eur"})
    bad, good = {"payment_method": "pm_card_chargeDeclined"}, {"payment_method": "pm_card_visa"}
    charges = set()
    for _ in range(2):
        with pytest.raises(stripe.CardError) as decline:
            client.v1.payment_intents.confirm(intent.id, bad, {"idempotency_key": "try"})
        charges.add(decline.value.error.charge)
    assert len(charges) == 1
    with pytest.raises(stripe.IdempotencyError):
        client.v1.payment_intents.confirm(intent.id, good, {"idempotency_key": "try"})
    assert client.v1.payment_intents.confirm(intent.id, good, {"idempotency_key": "try 2"}).status == "succeeded"


def test_a_late_refusal_is_remembered_though_it_had_no_effect(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "eur", "capture_method": "manual"})
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            client.v1.payment_intents.capture(intent.id, {}, {"idempotency_key": "early"})
        assert refusal.value.code == "payment_intent_unexpected_state"
        client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"}, {"idempotency_key": "confirm"})
    assert refusal.value.headers["idempotent-replayed"] == "true"
    assert client.v1.payment_intents.capture(intent.id).status == "succeeded"


def test_a_validation_failure_leaves_the_key_free(client):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.create({**PAY, "amount": 10}, {"idempotency_key": "k"})
    assert refusal.value.code == "amount_too_small"
    assert client.v1.payment_intents.create(PAY, {"idempotency_key": "k"}).status == "succeeded"


def test_a_key_belongs_to_its_account(account, processor_url):
    first = account.client().v1.payment_intents.create(PAY, {"idempotency_key": "shared"})
    other = stripe.StripeClient(account.key + "x", base_addresses={"api": processor_url})
    assert other.v1.payment_intents.create(PAY, {"idempotency_key": "shared"}).id != first.id
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        other.v1.payment_intents.retrieve(first.id)
    assert (refusal.value.http_status, refusal.value.code) == (404, "resource_missing")


async def test_twenty_parallel_posts_with_one_key_make_one_charge(http, books):
    headers = {"Idempotency-Key": "one"}
    replies = await asyncio.gather(*(http.post("/v1/payment_intents", data=FORM, headers=headers) for _ in range(20)))
    paid = [reply for reply in replies if reply.status_code == 200]
    assert len({reply.json()["id"] for reply in paid}) == 1
    assert len([reply for reply in paid if "idempotent-replayed" not in reply.headers]) == 1
    for reply in replies:
        if reply.status_code != 200:
            assert reply.status_code == 409
            assert reply.json()["error"]["code"] == "idempotency_key_in_use"
    assert [row["charges"] for row in books()] == [1]


async def test_twenty_official_clients_with_one_key_all_get_the_same_intent(account, books):
    client = account.client(retries=6)
    intents = await asyncio.gather(
        *(client.v1.payment_intents.create_async(PAY, {"idempotency_key": "one"}) for _ in range(20))
    )
    assert len({intent.id for intent in intents}) == 1
    assert [row["charges"] for row in books()] == [1]


async def test_a_key_in_flight_answers_409(http, arm):
    arm(mode="latency_in_flight", seconds=2, times=1, operations=["create"])
    headers = {"Idempotency-Key": "slow"}
    first = asyncio.create_task(http.post("/v1/payment_intents", data=FORM, headers=headers))
    while (await http.get("/test/faults")).json()["data"]:  # noqa: ASYNC110 (the event is in another process)
        await asyncio.sleep(0.02)
    second = await http.post("/v1/payment_intents", data=FORM, headers=headers)
    assert second.status_code == 409
    assert second.json()["error"]["type"] == "idempotency_error"
    assert (await first).status_code == 200
    third = await http.post("/v1/payment_intents", data=FORM, headers=headers)
    assert third.json() == (await first).json()


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_an_impossible_key_is_refused(http, key):
    reply = await http.post("/v1/payment_intents", data=FORM, headers={"Idempotency-Key": key})
    assert reply.status_code == 400


async def test_a_key_of_a_day_ago_is_new(account, platform_database_url):
    client = account.client()
    first = await client.v1.payment_intents.create_async(PAY, {"idempotency_key": "daily"})
    row = await asyncpg.connect(platform_database_url)
    age = "UPDATE processor.idempotency_key SET created_at = now() - $2::interval WHERE body LIKE '%' || $1 || '%'"
    await row.execute(age, first.id, timedelta(hours=23, minutes=59))
    again = await client.v1.payment_intents.create_async(PAY, {"idempotency_key": "daily"})
    await row.execute(age, first.id, timedelta(hours=24))
    anew = await client.v1.payment_intents.create_async(PAY, {"idempotency_key": "daily"})
    repeated = await client.v1.payment_intents.create_async(PAY, {"idempotency_key": "daily"})
    await row.close()
    assert (again.id, repeated.id) == (first.id, anew.id)
    assert anew.id != first.id


async def test_what_was_refused_or_repeated_holds_no_lock(http, platform_database_url):
    intent = (await http.post("/v1/payment_intents", data={"amount": 1000, "currency": "usd"})).json()["id"]
    method = (await http.get("/v1/payment_methods/pm_card_visa")).json()["id"]
    refused = {
        "/v1/payment_intents": [FORM, {**FORM, "amount": "1"}, {**FORM, "amount": "2000"}],
        f"/v1/payment_intents/{intent}/capture": [{}, {"colour": "red"}],
        "/v1/payment_intents/pi_none/confirm": [{"payment_method": method}],
        "/v1/refunds": [{"payment_intent": intent}, {"charge": "ch_none"}],
        "/v1/refunds/re_none": [{}],
    }
    connection = await asyncpg.connect(platform_database_url)
    held = "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database WHERE locktype = 'advisory'"
    for path, forms in refused.items():
        for form in forms:
            for fault in ("latency; seconds=0", "error_500_stored", "reply_lost", "error_500_after"):
                headers = {"Idempotency-Key": f"{path} {form} {fault}", "X-Mock-Fault": fault}
                with suppress(httpx.RemoteProtocolError):
                    await http.post(path, data=form, headers=headers)
                assert await connection.fetchval(f"{held} AND datname = current_database()") == 0, (path, form, fault)
    await connection.close()
