import pytest

from processor import machine
from processor.cards import AUTHENTICATION_REQUIRED, CARDS, GENERIC, card_named
from processor.commands import read_create
from processor.errors import StripeError
from processor.intents import new_document

STEPS = {
    "attach": lambda intent: machine.attach(intent, "pm_1"),
    "capture": lambda intent: machine.captured(intent, None),
    "cancel": lambda intent: machine.canceled(intent, None, 1),
    "confirm": lambda intent: machine.check_confirmable(intent, "pm_1"),
    "reprice": lambda intent: machine.repriced(intent, 2000, "eur"),
}
OPEN = {"attach", "cancel", "confirm", "reprice"}
ALLOWED = {
    "requires_payment_method": OPEN,
    "requires_confirmation": OPEN,
    "requires_action": OPEN,
    "requires_capture": {"capture", "cancel"},
    "succeeded": set(),
    "canceled": set(),
}


def intent(**members):
    command = read_create({"amount": "1000", "currency": "eur", "capture_method": "manual"})
    return {**new_document(1, command), **members}


@pytest.mark.parametrize("status", ALLOWED)
@pytest.mark.parametrize("step", STEPS)
def test_each_status_allows_its_steps_and_no_others(status, step):
    before = intent(status=status, amount_capturable=1000)
    if step in ALLOWED[status]:
        STEPS[step](before)
        return
    with pytest.raises(StripeError) as refusal:
        STEPS[step](before)
    assert refusal.value.error["code"] == "payment_intent_unexpected_state"
    assert refusal.value.error["payment_intent"] == before


def test_steps_leave_the_document_they_were_given_alone():
    before = intent(status="requires_capture", amount_capturable=1000)
    copy = dict(before)
    assert machine.captured(before, 600)["amount_received"] == 600
    assert before == copy


@pytest.mark.parametrize(
    ("card", "off_session", "error_on_action", "answer"),
    [
        ("pm_card_visa", False, False, None),
        ("pm_card_chargeDeclined", True, False, GENERIC),
        ("pm_card_authenticationRequired", False, False, "challenge"),
        ("pm_card_authenticationRequired", True, False, AUTHENTICATION_REQUIRED),
        ("pm_card_authenticationRequired", False, True, AUTHENTICATION_REQUIRED),
        ("pm_card_authenticationRequiredOnSetup", False, False, "challenge"),
        ("pm_card_authenticationRequiredOnSetup", True, False, None),
    ],
)
def test_what_the_issuer_says(card, off_session, error_on_action, answer):
    found = card_named(card)
    assert found is not None
    assert machine.outcome(found, off_session=off_session, error_on_action=error_on_action) == answer


def test_cards_are_found_by_their_exact_name():
    assert all(card_named(f"pm_card_{name}") for name in CARDS)
    assert card_named("pm_card_visa_mastercard") is None
    assert card_named("visa") is None
