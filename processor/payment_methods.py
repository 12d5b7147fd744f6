"""Payment methods. A `pm_card_...` alias mints a fresh `pm_` object each time it is named, as at Stripe."""

from dataclasses import dataclass
from typing import Any

from processor.cards import Card, card_named
from processor.context import Context
from processor.errors import StripeError, refused, resource_missing
from processor.forms import JSON
from processor.ids import new_id, random_text


@dataclass(frozen=True)
class Method:
    """A payment method with the test card behind it."""

    id: str
    card: Card
    document: JSON


async def resolve(context: Context, name: str, intent_id: str | None = None) -> Method:
    """The method that `name` (an alias or a `pm_` id) stands for, for a payment with `intent_id`.

    Raises StripeError 400 resource_missing; 400 for a method that paid for another intent (no customers, no reuse).
    """
    if name.startswith("pm_card_"):
        return _mint(context, name, None)
    row = await context.connection.fetchrow(
        "SELECT alias, used_by, document FROM processor.payment_method WHERE id = $1 AND account = $2",
        name,
        context.account,
    )
    card = card_named(row["alias"]) if row else None
    if row is None or card is None:
        raise resource_missing("PaymentMethod", name, "payment_method")
    if intent_id and row["used_by"] not in (None, intent_id):
        raise refused(
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, shared "
            "with a connected account without Customer attachment, or was detached from a Customer. It may not be "
            "used again. To use a PaymentMethod multiple times, you must attach it to a Customer first."
        )
    return Method(name, card, row["document"])


async def retrieve(context: Context, name: str) -> JSON:
    """The document of a method. Raises StripeError 404."""
    try:
        return (await resolve(context, name)).document
    except StripeError:
        raise resource_missing("PaymentMethod", name, "payment_method", 404) from None


async def use(context: Context, name: str, intent_id: str) -> Method:
    """As `resolve`; from now on the method belongs to this intent."""
    if name.startswith("pm_card_"):
        return _mint(context, name, intent_id)
    method = await resolve(context, name, intent_id)
    context.write(
        "UPDATE processor.payment_method SET used_by = $2 WHERE id = $1 AND used_by IS NULL", method.id, intent_id
    )
    return method


def _mint(context: Context, alias: str, used_by: str | None) -> Method:
    card = card_named(alias)
    if card is None:
        raise resource_missing("PaymentMethod", alias, "payment_method")
    id_ = new_id("pm")
    document = _document(id_, card, context.now)
    context.write(
        """
        INSERT INTO processor.payment_method (id, account, alias, used_by, document)
        VALUES ($1, $2, $3, $4, $5::text::jsonb)
        """,
        id_,
        context.account,
        alias,
        used_by,
        context.changing(id_, document),
    )
    return Method(id_, card, document)


def billing_details() -> dict[str, Any]:
    """Nothing is known about the card's owner."""
    address = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
    return {"address": address, "email": None, "name": None, "phone": None, "tax_id": None}


def _document(id_: str, card: Card, now: int) -> JSON:
    return {
        "id": id_,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": billing_details(),
        "card": {
            "brand": card.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": card.country,
            "display_brand": card.brand,
            "exp_month": 12,
            "exp_year": 2034,
            "fingerprint": random_text(16),
            "funding": card.funding,
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "radar_options": {},
        "type": "card",
    }
