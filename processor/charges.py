"""Charges: one row an attempt, made and changed only in the course of an intent."""

from typing import Any

from processor import books, events
from processor.cards import Decline
from processor.context import Context
from processor.forms import JSON
from processor.ids import new_id, random_text
from processor.payment_methods import Method, billing_details


def succeed(context: Context, intent: JSON, method: Method, *, authenticated: bool) -> JSON:
    """An authorized charge; taken at once unless the intent is captured by hand."""
    charge = _document(context, intent, method, None, authenticated)
    books.authorize(context, charge)
    if intent["capture_method"] != "manual":
        txn = books.capture(context, charge, charge["amount"])
        # with automatic_async the balance transaction is not known yet when the reply goes out
        known = txn if intent["capture_method"] == "automatic" else None
        charge = {**charge, "captured": True, "amount_captured": charge["amount"], "balance_transaction": known}
    _insert(context, charge)
    events.happened(context, "charge.succeeded", charge)
    return charge


def fail(context: Context, intent: JSON, method: Method, decline: Decline) -> JSON:
    """A charge that the issuer refused. No money, no entries."""
    charge = _document(context, intent, method, decline, False)
    _insert(context, charge)
    events.happened(context, "charge.failed", charge)
    return charge


def capture(context: Context, intent: JSON, amount: int) -> None:
    """Take `amount` (minor units) of the charge that the intent holds."""
    charge = _held(intent)
    txn = books.capture(context, charge, amount)
    change(context, charge["id"], {"captured": True, "amount_captured": amount, "balance_transaction": txn})


def void(context: Context, intent: JSON) -> None:
    """Let go of the charge that the intent holds; the charge itself shows no trace of it."""
    books.void(context, _held(intent))


async def load(context: Context, charge_id: str) -> JSON:
    """The document of a charge that is known to exist."""
    document: JSON = await context.connection.fetchval(
        "SELECT document FROM processor.charge WHERE id = $1 AND account = $2", charge_id, context.account
    )
    return document


def change(context: Context, charge_id: str, members: JSON) -> None:
    """Write these members of a charge; the rest of it need not be known."""
    context.write(
        "UPDATE processor.charge SET document = document || $2::text::jsonb WHERE id = $1",
        charge_id,
        context.changing(charge_id, members),
    )


def _held(intent: JSON) -> JSON:
    """What the books want to know of a held charge. It is for the intent's amount, which cannot change any more."""
    return {
        "id": intent["latest_charge"],
        "payment_intent": intent["id"],
        "currency": intent["currency"],
        "amount": intent["amount"],
    }


def _insert(context: Context, charge: JSON) -> None:
    context.write(
        """
        INSERT INTO processor.charge (id, account, created, payment_intent, customer, document)
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
        """,
        charge["id"],
        context.account,
        charge["created"],
        charge["payment_intent"],
        charge["customer"],
        context.changing(charge["id"], charge),
    )


def _document(context: Context, intent: JSON, method: Method, decline: Decline | None, authenticated: bool) -> JSON:
    paid = decline is None
    charge_id = new_id("ch")
    return {
        "id": charge_id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": intent["application_fee_amount"],
        "balance_transaction": None,
        "billing_details": billing_details(),
        "calculated_statement_descriptor": intent["statement_descriptor"] or "MOCK PROCESSOR",
        "captured": False,
        "created": context.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "destination": None,
        "dispute": None,
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": decline.code if decline else None,
        "failure_message": decline.message if decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "on_behalf_of": intent["on_behalf_of"],
        "order": None,
        "outcome": _outcome(method, decline),
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method": method.id,
        "payment_method_details": {"card": _card_details(intent, method, paid, authenticated), "type": "card"},
        "radar_options": {},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": f"{context.base_url}/v1/charges/{charge_id}" if paid else None,
        "refunded": False,
        "review": None,
        "shipping": intent["shipping"],
        "source": None,
        "source_transfer": None,
        "statement_descriptor": intent["statement_descriptor"],
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "succeeded" if paid else "failed",
        "transfer_data": intent["transfer_data"],
        "transfer_group": intent["transfer_group"],
    }


def _outcome(method: Method, decline: Decline | None) -> dict[str, Any]:
    risk = {"normal": 12, "elevated": 70, "highest": 95}
    outcome: dict[str, Any] = {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network",
        "reason": None,
        "risk_level": method.card.risk_level,
        "risk_score": risk[method.card.risk_level],
        "seller_message": "Payment complete.",
        "type": "authorized",
    }
    if decline is None:
        return outcome
    generic = decline.decline_code == "generic_decline"
    return {
        **outcome,
        "advice_code": "try_again_later" if generic else None,
        "network_decline_code": "01" if generic else None,
        "network_status": "not_sent_to_network" if decline.blocked else "declined_by_network",
        "reason": decline.reason,
        "seller_message": "The bank did not return any further details with this decline."
        if generic
        else f"The bank returned the decline code `{decline.reason}`.",
        "type": "blocked" if decline.blocked else "issuer_declined",
    }


def _card_details(intent: JSON, method: Method, paid: bool, authenticated: bool) -> dict[str, Any]:
    card = method.document["card"]
    unavailable = {"status": "unavailable"}
    secure = {
        "authentication_flow": "challenge",
        "electronic_commerce_indicator": "05",
        "exemption_indicator": None,
        "result": "authenticated",
        "result_reason": None,
        "transaction_id": None,
        "version": "2.2.0",
    }
    return {
        "amount_authorized": intent["amount"] if paid else None,
        "authorization_code": random_text(6).upper() if paid else None,
        **{name: card[name] for name in ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint")},
        "extended_authorization": {"status": "disabled"},
        "funding": card["funding"],
        "incremental_authorization": unavailable,
        "installments": None,
        "last4": card["last4"],
        "mandate": None,
        "multicapture": unavailable,
        "network": card["brand"],
        "network_token": {"used": False},
        "network_transaction_id": random_text(15) if paid else None,
        "overcapture": {"maximum_amount_capturable": intent["amount"], **unavailable},
        "regulated_status": "unregulated",
        "three_d_secure": secure if authenticated else None,
        "wallet": None,
    }
