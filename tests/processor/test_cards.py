import pytest
import stripe

DECLINES = [
    ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
    ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
    ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
    ("pm_card_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
    ("pm_card_chargeDeclinedVelocityLimitExceeded", "card_declined", "card_velocity_exceeded"),
    ("pm_card_chargeDeclinedFraudulent", "card_declined", "fraudulent"),
    ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
    ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
]
BRANDS = [
    *[("pm_card_visa", "visa"), ("pm_card_visa_debit", "visa"), ("pm_card_mastercard", "mastercard")],
    *[("pm_card_amex", "amex"), ("pm_card_discover", "discover"), ("pm_card_diners", "diners")],
    *[("pm_card_jcb", "jcb"), ("pm_card_unionpay", "unionpay"), ("pm_card_de", "visa")],
]


@pytest.mark.parametrize(("card", "code", "decline_code"), DECLINES)
def test_each_declining_card_declines_in_its_own_words(client, books, card, code, decline_code):
    intent = client.v1.payment_intents.create({"amount": 900, "currency": "eur", "capture_method": "manual"})
    with pytest.raises(stripe.CardError) as decline:
        client.v1.payment_intents.confirm(intent.id, {"payment_method": card})
    error = decline.value.error
    assert (decline.value.http_status, decline.value.code, error.decline_code) == (402, code, decline_code)
    assert error.payment_intent.id == intent.id
    after = client.v1.payment_intents.retrieve(intent.id, {"expand": ["latest_charge"]})
    assert (after.status, after.payment_method) == ("requires_payment_method", None)
    assert after.last_payment_error.code == code
    assert (after.latest_charge.status, after.latest_charge.paid) == ("failed", False)
    assert after.latest_charge.outcome.network_status in ("declined_by_network", "not_sent_to_network")
    assert (books()[0]["charges"], books()[0]["attempts"]) == (0, 1)


@pytest.mark.parametrize(("card", "brand"), BRANDS)
def test_each_good_card_pays(client, card, brand):
    intent = client.v1.payment_intents.create(
        {"amount": 900, "currency": "eur", "payment_method": card, "confirm": True, "expand": ["payment_method"]}
    )
    assert (intent.status, intent.payment_method.card.brand) == ("succeeded", brand)


def test_another_card_on_the_same_intent_makes_exactly_one_live_charge(client, books):
    with pytest.raises(stripe.CardError) as decline:
        client.v1.payment_intents.create(
            {"amount": 900, "currency": "eur", "payment_method": "pm_card_chargeDeclined", "confirm": True}
        )
    intent_id = decline.value.error.payment_intent.id
    intent = client.v1.payment_intents.confirm(intent_id, {"payment_method": "pm_card_visa"})
    assert (intent.id, intent.status, intent.last_payment_error) == (intent_id, "succeeded", None)
    assert (books()[0]["charges"], books()[0]["attempts"]) == (1, 2)


def test_an_unknown_card_is_missing(client):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.create(
            {"amount": 900, "currency": "eur", "payment_method": "pm_card_nobody", "confirm": True}
        )
    assert (refusal.value.code, refusal.value.param) == ("resource_missing", "payment_method")
    assert client.v1.payment_intents.list().data == []


def test_a_card_is_retrieved_as_a_fresh_object_and_pays_once(client):
    method = client.v1.payment_methods.retrieve("pm_card_visa")
    assert method.id != "pm_card_visa"
    assert method.id.startswith("pm_")
    assert method.card.last4 == "4242"
    payment = {"amount": 900, "currency": "eur", "payment_method": method.id, "confirm": True}
    assert client.v1.payment_intents.create(payment).payment_method == method.id
    with pytest.raises(stripe.InvalidRequestError, match="previously used"):
        client.v1.payment_intents.create(payment)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_methods.retrieve("pm_nothing")
    assert refusal.value.http_status == 404
