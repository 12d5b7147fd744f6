import base64

import httpx
import pytest
import stripe

from processor.errors import StripeError
from processor.forms import parse_form


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a=1&b%5Bc%5D%5Bd%5D=2", {"a": "1", "b": {"c": {"d": "2"}}}),
        ("expand[1]=y&expand[0]=x", {"expand": ["x", "y"]}),
        ("expand[]=x&expand%5B%5D=y", {"expand": ["x", "y"]}),
        ("b[0][c]=1&b[1][c]=2", {"b": [{"c": "1"}, {"c": "2"}]}),
        ("metadata[0]=x&metadata[k]=", {"metadata": {"0": "x", "k": ""}}),
        ("metadata[0]=only", {"metadata": {"0": "only"}}),
        ("d=a+b%2A&d=last", {"d": "last"}),
        ("", {}),
    ],
)
def test_nested_parameters_are_read(text, parsed):
    assert parse_form(text) == parsed


@pytest.mark.parametrize(
    "text", ["a=1&a[b]=2", "a[b]=1&a=2", "[a]=1", "a[b=1", "a]=1", "a[b][c][d][e][f][g][h][i]=1", "a=%00", "a=%FF"]
)
def test_parameters_that_do_not_parse_are_refused(text):
    with pytest.raises(StripeError) as refusal:
        parse_form(text)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer sk_live_x", "Bearer pk_test_x", "Basic ???", "Basic " + "c2tfbGl2ZTo="]
)
def test_without_a_test_key_nothing_is_said(processor_url, header):
    headers = {"Authorization": header} if header else {}
    for path in ("/v1/payment_intents", "/test/books"):
        reply = httpx.get(processor_url + path, headers=headers)
        assert reply.status_code == 401
        assert "code" not in reply.json()["error"]
        assert "sk_live_x" not in reply.text


def test_the_official_client_sees_an_authentication_error(processor_url):
    with pytest.raises(stripe.AuthenticationError):
        stripe.StripeClient("rk_nothing", base_addresses={"api": processor_url}).v1.payment_intents.list()


async def test_basic_auth_is_the_same_account(account, http):
    made = (await http.post("/v1/payment_intents", data={"amount": 1000, "currency": "usd"})).json()
    basic = base64.b64encode(f"{account.key}:".encode()).decode()
    reply = await http.get(f"/v1/payment_intents/{made['id']}", headers={"Authorization": f"Basic {basic}"})
    assert reply.json() == made


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"currency": "usd"}, "parameter_missing", "amount"),
        ({"amount": 1000}, "parameter_missing", "currency"),
        ({"amount": 0, "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": "1.5", "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": 10**30, "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": 49, "currency": "usd"}, "amount_too_small", "amount"),
        ({"amount": 100_000_000, "currency": "usd"}, "amount_too_large", "amount"),
        ({"amount": 1000, "currency": "xxx"}, None, "currency"),
        ({"amount": 1000, "currency": "usd", "colour": "red", "size": 1}, "parameter_unknown", "colour"),
        ({"amount": 1000, "currency": "usd", "capture_method": "never"}, None, "capture_method"),
        ({"amount": 1000, "currency": "usd", "confirm": "yes"}, None, "confirm"),
        ({"amount": 1000, "currency": "usd", "metadata": {"k": "v" * 501}}, None, "metadata[k]"),
        ({"amount": 1000, "currency": "usd", "expand": ["secrets"]}, None, "expand"),
    ],
)
def test_bad_parameters_are_named(client, params, code, param):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.create(params)
    assert (refusal.value.http_status, refusal.value.code, refusal.value.param) == (400, code, param)
    assert refusal.value.headers["stripe-should-retry"] == "false"


def test_an_unknown_parameter_on_an_intent_carries_the_intent(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.cancel(intent.id, {"why": "so", "who": "me"})
    assert (refusal.value.code, refusal.value.error.payment_intent.id) == ("parameter_unknown", intent.id)
    assert "why, who" in str(refusal.value)


def test_unknown_ids_in_paths_are_404(client):
    for call in (
        client.v1.payment_intents.retrieve,
        client.v1.payment_intents.capture,
        client.v1.charges.retrieve,
        client.v1.refunds.retrieve,
    ):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            call("pi_none")
        assert (refusal.value.http_status, refusal.value.code) == (404, "resource_missing")


async def test_headers_tell_about_the_request(http):
    headers = {"Stripe-Version": "2026-10-28.endive", "Idempotency-Key": "k"}
    reply = await http.post("/v1/payment_intents", data={"amount": 1000, "currency": "usd"}, headers=headers)
    assert reply.headers["request-id"].startswith("req_")
    assert reply.headers["original-request"] == reply.headers["request-id"]
    assert (reply.headers["stripe-version"], reply.headers["idempotency-key"]) == ("2026-10-28.endive", "k")


async def test_other_addresses_and_huge_bodies_are_refused_as_json(http):
    for method, path in (("GET", "/v1/payment_intents/"), ("DELETE", "/v1/refunds"), ("GET", "/nowhere")):
        reply = await http.request(method, path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "invalid_request_error")
    reply = await http.post("/v1/payment_intents", content=b"a=" + b"x" * 300_000)
    assert reply.status_code == 413


def test_confirming_needs_a_return_url_only_where_redirects_are_asked_for(client):
    payment = {"amount": 1000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    with pytest.raises(stripe.InvalidRequestError, match="return_url"):
        client.v1.payment_intents.create({**payment, "automatic_payment_methods": {"enabled": True}})
    automatic = {"enabled": True, "allow_redirects": "never"}
    assert client.v1.payment_intents.create({**payment, "automatic_payment_methods": automatic}).status == "succeeded"


@pytest.mark.parametrize(
    "path",
    ["/v1/payment_intents/%00", "/v1/payment_intents?customer=%00", "/test/books?order_id=%00", "/test/3ds/%00"],
)
async def test_null_bytes_are_a_400(http, path):
    assert (await http.get(path)).status_code == 400


@pytest.mark.parametrize("limit", ["0", "-1", "x", "99999", ""])
async def test_the_books_refuse_an_odd_limit(http, limit):
    assert (await http.get("/test/books", params={"limit": limit})).status_code == 400


async def test_the_books_come_in_pages(http):
    ids = [
        (await http.post("/v1/payment_intents", data={"amount": 1000, "currency": "usd"})).json()["id"]
        for _ in range(3)
    ]
    page = (await http.get("/test/books", params={"limit": 2})).json()
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (ids[:2], True)
    page = (await http.get("/test/books", params={"limit": 2, "starting_after": ids[1]})).json()
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (ids[2:], False)
