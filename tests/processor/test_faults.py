import asyncio
import time

import httpx
import pytest
import stripe

PAY = {"amount": 1000, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
FORM = {"amount": "1000", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_lost_reply_is_a_charge_and_the_retry_gets_it(account, arm, books, how):
    arm(mode="reply_lost", times=1)
    client = account.client(retries=2)
    if how == "sync":
        intent = await asyncio.to_thread(client.v1.payment_intents.create, PAY)
    else:
        intent = await client.v1.payment_intents.create_async(PAY)
    assert intent.last_response.headers["idempotent-replayed"] == "true"
    [row] = books()
    assert (row["id"], row["captured"], row["charges"]) == (intent.id, 1000, 1)


def test_a_lost_reply_without_a_retry_is_a_lost_connection(client, arm, books):
    arm(mode="reply_lost", times=1)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.payment_intents.create(PAY, {"idempotency_key": "k"})
    assert books()[0]["captured"] == 1000
    assert client.v1.payment_intents.create(PAY, {"idempotency_key": "k"}).id == books()[0]["id"]


async def test_a_fault_by_header_meets_this_request_only(http, books):
    headers = {"Idempotency-Key": "k", "X-Mock-Fault": "reply_lost"}
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/v1/payment_intents", data=FORM, headers=headers)
    again = await http.post("/v1/payment_intents", data=FORM, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert [row["charges"] for row in books()] == [1]


def test_a_500_before_the_effect_is_not_remembered(account, arm, books):
    arm(mode="error_500", times=1)
    with pytest.raises(stripe.APIError):
        account.client().v1.payment_intents.create(PAY, {"idempotency_key": "k"})
    assert books() == []
    assert account.client().v1.payment_intents.create(PAY, {"idempotency_key": "k"}).status == "succeeded"


@pytest.mark.parametrize(("fault", "charges"), [({"mode": "error_500_after"}, [1]), ({"mode": "error_500"}, [])])
def test_a_stored_500_is_repeated_for_ever(client, arm, books, fault, charges):
    arm(**fault, stored=True, times=1)
    for _ in range(3):
        with pytest.raises(stripe.APIError) as failure:
            client.v1.payment_intents.create(PAY, {"idempotency_key": "k"})
        assert failure.value.http_status == 500
    assert failure.value.headers["idempotent-replayed"] == "true"
    assert [row["charges"] for row in books()] == charges


@pytest.mark.parametrize("mode", ["error_502", "error_503", "drop"])
def test_the_official_client_gets_over_a_passing_fault(account, arm, mode):
    arm(mode=mode, times=1)
    assert account.client(retries=2).v1.payment_intents.create(PAY).status == "succeeded"


def test_429_is_a_rate_limit_and_has_no_effect(client, arm, books):
    arm(mode="error_429", times=1)
    with pytest.raises(stripe.RateLimitError) as limit:
        client.v1.payment_intents.create(PAY, {"idempotency_key": "k"})
    assert limit.value.headers["stripe-rate-limited-reason"] == "global-rate"
    assert books() == []
    assert client.v1.payment_intents.create(PAY, {"idempotency_key": "k"}).status == "succeeded"


async def test_latency_and_silence_outlast_a_short_timeout(account, arm, books):
    async with httpx.AsyncClient(base_url=account.url, headers=account.headers, timeout=0.5) as http:
        for mode, effects in (("silent", 0), ("latency_after", 1)):
            arm(mode=mode, seconds=1.5, times=1, operations=["create"])
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/payment_intents", data=FORM, headers={"Idempotency-Key": mode})
            assert len(books()) == effects
    arm(mode="latency", seconds=0.3, times=1, operations=["list"])
    begun = time.monotonic()
    await account.client().v1.payment_intents.list_async()
    assert time.monotonic() - begun >= 0.3


def test_a_fault_for_one_order_leaves_the_others_alone(client, account, arm):
    ours, others = ({**PAY, "metadata": {"order_id": order}, "capture_method": "manual"} for order in "ab")
    first = client.v1.payment_intents.create(ours)
    arm(mode="error_500", order_id="a", operations=["capture"])
    arm(mode="error_503", order_id="z")
    second = client.v1.payment_intents.create(others)
    assert client.v1.payment_intents.capture(second.id).status == "succeeded"
    with pytest.raises(stripe.APIError):
        client.v1.payment_intents.capture(first.id)
    httpx.delete(f"{account.url}/test/faults", params={"order_id": "a"}, headers=account.headers)
    armed = httpx.get(f"{account.url}/test/faults", headers=account.headers).json()["data"]
    assert [fault["metadata"] for fault in armed] == [{"order_id": "z"}]
    assert client.v1.payment_intents.capture(first.id).status == "succeeded"


@pytest.mark.parametrize(
    "fault",
    [
        *['{"mode": "nonsense"}', "{", "[1]", '{"mode": "latency", "seconds": -1}', '{"mode": "drop", "rate": 2}'],
        *['{"mode": "drop", "times": 0}', '{"mode": "drop", "operations": ["x"]}', '{"mode": "drop", "who": 1}'],
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(http, fault):
    reply = await http.put("/test/faults", content=fault)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]
