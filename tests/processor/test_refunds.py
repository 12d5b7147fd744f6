import pytest
import stripe

PAY = {"amount": 1000, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}


def test_refunds_add_up_to_what_was_taken_and_no_further(client, books):
    intent = client.v1.payment_intents.create(PAY)
    part = client.v1.refunds.create(
        {"payment_intent": intent.id, "amount": 400, "reason": "requested_by_customer", "metadata": {"n": 1}}
    )
    assert (part.status, part.amount, part.charge, part.metadata["n"]) == ("succeeded", 400, intent.latest_charge, "1")
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount") as refusal:
        client.v1.refunds.create({"payment_intent": intent.id, "amount": 601})
    assert (refusal.value.param, refusal.value.code) == ("amount", None)
    rest = client.v1.refunds.create({"charge": intent.latest_charge})
    assert rest.amount == 600
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create({"payment_intent": intent.id})
    assert refusal.value.code == "charge_already_refunded"
    charge = client.v1.charges.retrieve(intent.latest_charge)
    assert (charge.refunded, charge.amount_refunded) == (True, 1000)
    assert (books()[0]["captured"], books()[0]["refunded"], books()[0]["charges"]) == (1000, 1000, 0)
    listed = client.v1.refunds.list({"payment_intent": intent.id, "expand": ["data.charge"]})
    assert [refund.id for refund in listed.data] == [rest.id, part.id]
    assert listed.data[0].charge.id == charge.id
    assert client.v1.refunds.retrieve(part.id).to_dict() == part.to_dict()
    assert client.v1.refunds.update(part.id, {"metadata": {"n": "2"}}).metadata["n"] == "2"
    assert client.v1.payment_intents.retrieve(intent.id).status == "succeeded"


def test_only_the_captured_part_can_be_given_back(client):
    held = client.v1.payment_intents.create({**PAY, "capture_method": "manual"})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        client.v1.refunds.create({"payment_intent": held.id})
    client.v1.payment_intents.capture(held.id, {"amount_to_capture": 300})
    with pytest.raises(stripe.InvalidRequestError, match="greater than charge amount"):
        client.v1.refunds.create({"payment_intent": held.id, "amount": 301})
    assert client.v1.refunds.create({"payment_intent": held.id}).amount == 300


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"payment_intent": "pi_none"}, "resource_missing", "payment_intent"),
        ({"charge": "ch_none"}, "resource_missing", "charge"),
        ({}, "parameter_missing", "payment_intent"),
        ({"payment_intent": "pi_none", "amount": 0}, "parameter_invalid_integer", "amount"),
        ({"payment_intent": "pi_none", "why": "x"}, "parameter_unknown", "why"),
    ],
)
def test_a_refund_of_nothing_is_refused(client, params, code, param):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create(params)
    assert (refusal.value.http_status, refusal.value.code, refusal.value.param) == (400, code, param)
