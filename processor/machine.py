"""The PaymentIntent as a pure state machine: documents in, documents out, no I/O.

    requires_payment_method --attach--> requires_confirmation --attempt--> succeeded | requires_capture
              ^                                                   |
              +-- declined -------- requires_action <--challenge--+       requires_capture --capture--> succeeded
    every status before `succeeded` --cancel--> canceled

Each function refuses a document whose status does not allow the step (StripeError 400 payment_intent_unexpected_state).
"""

from typing import Any, Literal

from processor.cards import AUTHENTICATION_REQUIRED, Card, Decline
from processor.errors import refused, unexpected_state

Intent = dict[str, Any]

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CAPTURABLE = ("requires_capture",)
CANCELABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")
REASONS = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")


def attach(intent: Intent, method_id: str) -> Intent:
    """A payment method is chosen, and not yet charged."""
    if intent["status"] not in CONFIRMABLE:
        status = intent["status"]
        message = (
            f"You cannot modify `payment_method` on this PaymentIntent because it has a status of {status}. Only a "
            f"PaymentIntent with one of the following statuses may be modified: {', '.join(CONFIRMABLE)}."
        )
        raise unexpected_state(message, intent, param="payment_method")
    return {**intent, "payment_method": method_id, "status": "requires_confirmation", "next_action": None}


def check_confirmable(intent: Intent, method: str | None) -> None:
    """Refuse a confirm that the status does not allow, or with no payment method on the intent nor named with it."""
    status = intent["status"]
    if status == "succeeded":
        message = (
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed."
        )
        raise unexpected_state(message, intent)
    if status not in CONFIRMABLE:
        message = (
            f"You cannot confirm this PaymentIntent because it has a status of {status}. Only a PaymentIntent with "
            f"one of the following statuses may be confirmed: {', '.join(CONFIRMABLE)}."
        )
        raise unexpected_state(message, intent)
    if method is None and intent["payment_method"] is None:
        message = (
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the "
            "PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a "
            "payment method or ConfirmationToken."
        )
        raise unexpected_state(message, intent)


def outcome(card: Card, *, off_session: bool, error_on_action: bool) -> Decline | Literal["challenge"] | None:
    """What the issuer says to an attempt: a decline, a challenge, or None for yes."""
    if card.challenge == "always" and (off_session or error_on_action):
        return AUTHENTICATION_REQUIRED
    if card.challenge == "on_session" and not off_session:
        return AUTHENTICATION_REQUIRED if error_on_action else "challenge"
    if card.challenge == "always":
        return "challenge"
    return card.decline


def challenged(intent: Intent, next_action: dict[str, Any]) -> Intent:
    """The issuer wants to see the shopper first."""
    return {**intent, "status": "requires_action", "next_action": next_action, "last_payment_error": None}


def authorized(intent: Intent, charge_id: str) -> Intent:
    """The issuer said yes: money held (manual capture) or taken."""
    held = intent["capture_method"] == "manual"
    amount = intent["amount"]
    return {
        **intent,
        "status": "requires_capture" if held else "succeeded",
        "amount_capturable": amount if held else 0,
        "amount_received": 0 if held else amount,
        "latest_charge": charge_id,
        "last_payment_error": None,
        "next_action": None,
    }


def declined(intent: Intent, charge_id: str | None, error: dict[str, Any]) -> Intent:
    """The issuer said no: the intent is open for another payment method."""
    return {
        **intent,
        "status": "requires_payment_method",
        "payment_method": None,
        "latest_charge": charge_id or intent["latest_charge"],
        "last_payment_error": error,
        "next_action": None,
    }


def captured(intent: Intent, amount: int | None) -> Intent:
    """Take `amount` (minor units; None: all) of what is held and let go of the rest."""
    status = intent["status"]
    if status == "succeeded":
        message = "This PaymentIntent could not be captured because it has already been captured."
        raise unexpected_state(message, intent)
    if status not in CAPTURABLE:
        message = (
            f"This PaymentIntent could not be captured because it has a status of {status}. Only a PaymentIntent with "
            f"one of the following statuses may be captured: {', '.join(CAPTURABLE)}."
        )
        raise unexpected_state(message, intent)
    capturable = intent["amount_capturable"]
    taken = capturable if amount is None else amount
    if taken > capturable:
        message = (
            f"The amount to capture ({taken}) is greater than the amount that can be captured ({capturable}) on this "
            "PaymentIntent."
        )
        raise refused(message, code="amount_too_large", param="amount_to_capture", intent=intent)
    return {**intent, "status": "succeeded", "amount_received": taken, "amount_capturable": 0}


def canceled(intent: Intent, reason: str | None, now: int) -> Intent:
    """Give up: what is held is let go."""
    status = intent["status"]
    if status not in CANCELABLE:
        message = (
            f"You cannot cancel this PaymentIntent because it has a status of {status}. Only a PaymentIntent with one "
            f"of the following statuses may be canceled: {', '.join(CANCELABLE)}."
        )
        raise unexpected_state(message, intent)
    return {
        **intent,
        "status": "canceled",
        "canceled_at": now,
        "cancellation_reason": reason,
        "amount_capturable": 0,
        "next_action": None,
    }


def repriced(intent: Intent, amount: int, currency: str) -> Intent:
    """Another amount, while nothing is held or taken."""
    if intent["status"] not in CONFIRMABLE:
        message = (
            f"This PaymentIntent's amount could not be updated because it has a status of {intent['status']}. Only a "
            f"PaymentIntent with one of the following statuses may be updated: {', '.join(CONFIRMABLE)}."
        )
        raise unexpected_state(message, intent, param="amount")
    return {**intent, "amount": amount, "currency": currency}
