"""Refunds: money given back on a captured charge, never more than was taken."""

from processor import books, charges, events, intents
from processor.commands import Refund
from processor.context import Context
from processor.errors import Reply, StripeError, refused, resource_missing
from processor.forms import JSON
from processor.ids import new_id, random_text
from processor.params import Params, merged_metadata


async def create(context: Context, command: Refund) -> Reply:
    """Refund the rest or a part. The intent is locked, so that two refunds cannot both have the last cent."""
    intent = await _intent(context, command)
    charge = await _charge(context, intent, command)
    amount = _amount(charge, command.amount)
    txn = books.refund(context, charge, amount)
    refund = {**_document(context, charge, command, amount), "balance_transaction": txn}
    refunded = charge["amount_refunded"] + amount
    changes = {"amount_refunded": refunded, "refunded": refunded == charge["amount_captured"]}
    charges.change(context, charge["id"], changes)
    context.write(
        """
        INSERT INTO processor.refund (id, account, created, payment_intent, charge, document)
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
        """,
        refund["id"],
        context.account,
        refund["created"],
        refund["payment_intent"],
        refund["charge"],
        context.encoded(refund),
    )
    events.happened(context, "refund.created", refund)
    events.happened(context, "charge.refunded", {**charge, **changes})
    return Reply(200, refund)


async def update(context: Context, refund_id: str, changes: dict[str, str] | None) -> Reply:
    """Metadata is all that can be changed."""
    stored: JSON | None = (await context.lock("lock_refund", context.account, refund_id))["document"]
    if stored is None:
        raise resource_missing("refund", refund_id, "id", 404)
    refund = {**stored, "metadata": merged_metadata(stored["metadata"], changes)}
    context.write(
        "UPDATE processor.refund SET document = $2::text::jsonb WHERE id = $1", refund_id, context.encoded(refund)
    )
    return Reply(200, refund)


def read_update(raw: JSON) -> dict[str, str] | None:
    """Parameters of POST /v1/refunds/{id}."""
    return Params(raw, ("metadata", "expand")).metadata()


async def _intent(context: Context, command: Refund) -> JSON:
    intent_id = command.intent
    if command.charge:
        of_charge: str | None = await context.connection.fetchval(
            "SELECT payment_intent FROM processor.charge WHERE id = $1 AND account = $2",
            command.charge,
            context.account,
        )
        if of_charge is None:
            raise resource_missing("charge", command.charge, "charge")
        if intent_id not in (None, of_charge):
            raise refused(f"Charge {command.charge} does not belong to PaymentIntent {intent_id}.", param="charge")
        intent_id = of_charge
    try:
        return await intents.lock(context, intent_id or "")
    except StripeError as error:
        if error.status == 404:
            raise resource_missing("payment_intent", intent_id or "", "payment_intent") from None
        raise


async def _charge(context: Context, intent: JSON, command: Refund) -> JSON:
    charge_id = command.charge or intent["latest_charge"]
    charge = await charges.load(context, charge_id) if charge_id else None
    if charge is None or not charge["captured"]:
        raise refused(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
    return charge


def _amount(charge: JSON, asked: int | None) -> int:
    left: int = charge["amount_captured"] - charge["amount_refunded"]
    if left == 0:
        raise refused(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if asked is None:
        return left
    if asked > left:
        of = "unrefunded amount on charge" if charge["amount_refunded"] else "charge amount"
        message = f"Refund amount ({_shown(asked)}) is greater than {of} ({_shown(left)})"
        raise refused(message, param="amount")
    return asked


def _shown(amount: int) -> str:
    return f"${amount // 100}.{amount % 100:02}"


def _document(context: Context, charge: JSON, command: Refund, amount: int) -> JSON:
    card = {
        "reference": random_text(12),
        "reference_status": "available",
        "reference_type": "acquirer_reference_number",
        "type": "refund",
    }
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": context.now,
        "currency": charge["currency"],
        "description": None,
        "destination_details": {"card": card, "type": "card"},
        "failure_balance_transaction": None,
        "failure_reason": None,
        "instructions_email": None,
        "metadata": merged_metadata({}, command.metadata),
        "next_action": None,
        "payment_intent": charge["payment_intent"],
        "pending_reason": None,
        "reason": command.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
