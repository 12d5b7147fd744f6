"""What the processor tells by webhook: kept once an event, and held against what we know already.

Nothing in an event is believed but that something happened to an intent. Which order that is, our own payments say; and
what happened is found out by asking the processor, by the run that waits for it. So an event can come late, twice, out
of order, or beside the answer that it repeats: it wakes somebody at most.
"""

import json
from dataclasses import dataclass
from uuid import UUID

import stripe
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import InvalidRequest, Unauthenticated

TOLERANCE_SECONDS = 300
MOST_SIGNATURES = 50

# type -> what our payment must say for the event to be news; a payment that is voided has heard everything
NEWS_WHEN = {
    "payment_intent.amount_capturable_updated": ("none", "declined", "unknown"),
    "payment_intent.requires_action": ("unknown",),
    "payment_intent.payment_failed": ("none", "unknown"),
    "payment_intent.canceled": ("none", "declined", "unknown", "authorized"),
}

# One statement keeps the event and says what it is worth; no row: this very delivery has been here before.
_KEEP = text(f"""
    WITH payment AS (
        SELECT order_id, status = ANY (CAST(:news_when AS text[])) AND voided_at IS NULL AS news
        FROM payments.payments WHERE intent_id = :intent_id
    )
    INSERT INTO payments.processor_events AS e (
        event_id, type, intent_id, order_id, created_at, signatures, handled_at
    )
    SELECT :event_id, :type, CAST(:intent_id AS text), p.order_id, to_timestamp(:created),
           ARRAY[CAST(:signature AS text)],
           CASE WHEN p.order_id IS NOT NULL AND NOT p.news AND :type <> 'refund.failed' THEN now() END
    FROM (SELECT 1) AS one LEFT JOIN payment p ON true
    ON CONFLICT (event_id) DO UPDATE SET
        deliveries = e.deliveries + 1, order_id = coalesce(e.order_id, excluded.order_id),
        signatures = (e.signatures || excluded.signatures)[
            greatest(1, cardinality(e.signatures) + 2 - {MOST_SIGNATURES}) : ]
    WHERE NOT e.signatures && excluded.signatures
    RETURNING order_id, handled_at IS NULL AND type <> 'refund.failed' AS news
""")

_HANDLED = text("UPDATE payments.processor_events SET handled_at = now() WHERE event_id = :event_id")


@dataclass(frozen=True)
class Told:
    """An event as it came, with the signature that came with it."""

    event_id: str
    type: str
    intent_id: str | None
    created: int  # seconds since 1970, by the processor's clock
    signature: str


def read(body: bytes, signature: str, secrets: str) -> Told:
    """The event in a delivery, if one of the `secrets` (separated by commas, while they change) has signed it.

    Raises:
        Unauthenticated: `webhook_signature_invalid`: wrong, or older than five minutes.
        InvalidRequest: signed, and yet no event.
    """
    try:
        payload = body.decode()
    except UnicodeDecodeError:
        raise _unsigned() from None
    if not any(_signed(payload, signature, secret.strip()) for secret in secrets.split(",") if secret.strip()):
        raise _unsigned()
    try:
        event = json.loads(payload)
        thing = event["data"]["object"]
        intent = thing["id"] if thing["object"] == "payment_intent" else thing.get("payment_intent")
        return Told(str(event["id"]), str(event["type"]), intent, int(event["created"]), signature)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InvalidRequest("this is no event of the payment processor") from error


async def keep(session: AsyncSession, told: Told) -> UUID | None:
    """Write the event down; the order that it is news for, None if it tells nobody anything.

    Raises:
        Unauthenticated: `webhook_replayed`: the same delivery, signature and all, has been here before.
    """
    parameters = {
        "event_id": told.event_id,
        "type": told.type,
        "intent_id": told.intent_id,
        "created": float(told.created),
        "signature": told.signature,
        "news_when": list(NEWS_WHEN.get(told.type, ())),
    }
    row = (await (await session.connection()).execute(_KEEP, parameters)).first()
    if row is None:
        raise Unauthenticated("This delivery has been received before.", code="webhook_replayed")
    order_id: UUID | None = row.order_id
    return order_id if row.news else None


async def handled(session: AsyncSession, event_id: str) -> None:
    """Whoever waits for it has been told."""
    await (await session.connection()).execute(_HANDLED, {"event_id": event_id})


async def unheard_refunds(session: AsyncSession, limit: int) -> list[tuple[str, UUID]]:
    """Refunds that failed after they had been accepted: (event, order), until `handled`."""
    query = text("""
        SELECT event_id, order_id FROM payments.processor_events
        WHERE handled_at IS NULL AND type = 'refund.failed' AND order_id IS NOT NULL ORDER BY received_at LIMIT :limit
    """)
    return [(row.event_id, row.order_id) for row in await (await session.connection()).execute(query, {"limit": limit})]


def _signed(payload: str, signature: str, secret: str) -> bool:
    if not signature.isascii():
        return False  # the library's comparison raises TypeError
    try:
        return bool(stripe.WebhookSignature.verify_header(payload, signature, secret, TOLERANCE_SECONDS))
    except stripe.SignatureVerificationError:
        return False


def _unsigned() -> Unauthenticated:
    return Unauthenticated(
        "The signature of this delivery is missing, wrong, or too old.", code="webhook_signature_invalid"
    )
