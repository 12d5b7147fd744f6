"""Events: what happened to an intent, charge or refund, kept with the effect itself and delivered to whoever listens.

An event is written in the statement of its effect, so that neither is known without the other. Only what some endpoint
of the account listens to is kept: an account without endpoints pays nothing for them. (At Stripe every event is kept
for 30 days; here those that were asked for.)

| what happens            | events                                                                      |
|-------------------------|-----------------------------------------------------------------------------|
| create                  | payment_intent.created                                                      |
| confirm, held           | charge.succeeded, payment_intent.amount_capturable_updated                  |
| confirm, taken at once  | charge.succeeded, payment_intent.succeeded                                  |
| confirm, declined       | charge.failed, payment_intent.payment_failed                                |
| confirm, challenged     | payment_intent.requires_action; after it those of held, taken or declined   |
| capture                 | payment_intent.succeeded                                                    |
| cancel                  | payment_intent.canceled                                                     |
| refund                  | refund.created, charge.refunded; refund.failed if it fails later            |
"""

import json
from typing import Any

from processor.context import Context
from processor.forms import JSON
from processor.ids import new_id

EVERY_ACCOUNT = "*"  # whose endpoint it is that was configured for no account
API_VERSION = "2026-08-26.dahlia"
TYPES = (
    *("payment_intent.created", "payment_intent.requires_action", "payment_intent.amount_capturable_updated"),
    *("payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled"),
    *("charge.succeeded", "charge.failed", "charge.refunded"),
    *("refund.created", "refund.failed"),
)


def happened(context: Context, type_: str, thing: JSON) -> None:
    """Note that `type_` happened to `thing`, which is as it will be once the context is flushed."""
    if context.outbox is None or not context.outbox.listens(context.account, type_):
        return
    document: dict[str, Any] = {
        "id": new_id("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": context.now,
        "data": {"object": thing},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": context.request_id, "idempotency_key": context.key},
        "type": type_,
    }
    context.write(
        """
        INSERT INTO processor.event (id, account, created, type, document) VALUES ($1, $2, $3, $4, $5::text::jsonb)
        """,
        document["id"],
        context.account,
        context.now,
        type_,
        json.dumps(document),
    )
    context.write(
        """
        INSERT INTO processor.delivery (event, endpoint, due_at)
        SELECT $1, id, clock_timestamp() + make_interval(secs => $4) FROM processor.webhook_endpoint
        WHERE account IN ($2, '*') AND status = 'enabled' AND enabled_events && ARRAY['*', $3]
        """,
        document["id"],
        context.account,
        type_,
        context.outbox.delay,
    )
    context.told = True


def of_intent(context: Context, intent: JSON) -> None:
    """What an attempt, or the end of a challenge, has made of the intent."""
    types = {
        "requires_action": "payment_intent.requires_action",
        "requires_capture": "payment_intent.amount_capturable_updated",
        "succeeded": "payment_intent.succeeded",
        "canceled": "payment_intent.canceled",
    }
    if intent["status"] == "requires_payment_method" and intent["last_payment_error"]:
        happened(context, "payment_intent.payment_failed", intent)
    elif type_ := types.get(intent["status"]):
        happened(context, type_, intent)
