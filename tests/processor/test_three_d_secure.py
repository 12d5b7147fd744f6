from urllib.parse import parse_qs, urlsplit

import pytest
import stripe

CARD = "pm_card_authenticationRequired"
CONFIRM = {"payment_method": CARD, "return_url": "https://shop.example/back?order=7"}


@pytest.fixture
def waiting(client):
    """An intent whose shopper is asked by the bank."""
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "eur", "capture_method": "manual"})
    return client.v1.payment_intents.confirm(intent.id, CONFIRM)


async def test_the_shopper_passes_and_comes_back(client, waiting, http, books):
    assert waiting.status == "requires_action"
    assert waiting.next_action.type == "redirect_to_url"
    assert books()[0]["charges"] == 0
    page = await http.get(waiting.next_action.redirect_to_url.url)
    assert page.status_code == 200
    assert f'action="{waiting.id}/complete"' in page.text
    back = await http.post(f"/test/3ds/{waiting.id}/complete", data={"client_secret": waiting.client_secret})
    assert back.status_code == 303
    told = parse_qs(urlsplit(back.headers["location"]).query)
    assert (told["order"], told["redirect_status"], told["payment_intent"]) == (["7"], ["succeeded"], [waiting.id])
    after = client.v1.payment_intents.retrieve(waiting.id, {"expand": ["latest_charge"]})
    assert (after.status, after.next_action, after.client_secret) == ("requires_capture", None, waiting.client_secret)
    assert after.latest_charge.payment_method_details.card.three_d_secure.result == "authenticated"
    again = await http.post(f"/test/3ds/{waiting.id}/fail", data={"client_secret": waiting.client_secret})
    assert again.status_code == 200
    assert client.v1.payment_intents.retrieve(waiting.id).status == "requires_capture"
    assert books()[0]["charges"] == 1


async def test_the_shopper_fails_and_may_take_another_card(client, waiting, http):
    await http.post(f"/test/3ds/{waiting.id}/fail", data={"client_secret": waiting.client_secret})
    after = client.v1.payment_intents.retrieve(waiting.id)
    assert (after.status, after.payment_method) == ("requires_payment_method", None)
    assert after.last_payment_error.code == "payment_intent_authentication_failure"
    assert (
        client.v1.payment_intents.confirm(waiting.id, {"payment_method": "pm_card_visa"}).status == "requires_capture"
    )


async def test_a_stranger_sees_no_page(waiting, http):
    for path in ("", "?client_secret=guess"):
        assert (await http.get(f"/test/3ds/{waiting.id}{path}")).status_code == 404
    assert (await http.post(f"/test/3ds/{waiting.id}/complete")).status_code == 404


def test_nobody_there_to_ask_is_a_decline(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "eur"})
    with pytest.raises(stripe.CardError) as decline:
        client.v1.payment_intents.confirm(intent.id, {"payment_method": CARD, "off_session": True})
    assert (decline.value.code, decline.value.error.decline_code) == ("authentication_required",) * 2
    with pytest.raises(stripe.CardError) as decline:
        client.v1.payment_intents.confirm(intent.id, {"payment_method": CARD, "error_on_requires_action": True})
    assert decline.value.code == "authentication_required"


async def test_a_card_may_decline_after_authentication(client, http):
    card = "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds"
    intent = client.v1.payment_intents.create(
        {"amount": 1000, "currency": "eur", "payment_method": card, "confirm": True}
    )
    assert intent.next_action.type == "use_stripe_sdk"
    reply = await http.post(f"/test/3ds/{intent.id}/complete", data={"client_secret": intent.client_secret})
    assert reply.status_code == 200
    after = client.v1.payment_intents.retrieve(intent.id)
    assert (after.status, after.last_payment_error.decline_code) == ("requires_payment_method", "insufficient_funds")
