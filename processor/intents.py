"""Payment intents: load and lock, let the state machine decide, write intent, charge and book entries together."""

from dataclasses import replace
from typing import Any

from processor import charges, events, machine, payment_methods
from processor.cards import AUTHENTICATION_REQUIRED, Decline
from processor.commands import Attempt, Capture, Confirm, Create, Update, check_amount
from processor.context import Context
from processor.errors import Reply, lock_timeout, refused, resource_missing
from processor.forms import JSON
from processor.ids import new_id, random_text
from processor.params import merged_metadata

AUTHENTICATION_FAILED: JSON = {
    "code": "payment_intent_authentication_failure",
    "doc_url": "https://stripe.com/docs/error-codes/payment-intent-authentication-failure",
    "message": (
        "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
        "PaymentMethod to attempt to fulfill this PaymentIntent again."
    ),
    "type": "invalid_request_error",
}


async def create(context: Context, command: Create) -> Reply:
    """A new intent, confirmed at once if the command says so: 402 on a decline, and the intent exists all the same."""
    intent = new_document(context.now, command)
    if command.confirm:
        intent, error = await _attempt(context, intent, command.attempt)
    else:
        error = None
        if command.attempt.method:
            method = await payment_methods.resolve(context, command.attempt.method, intent["id"])
            intent = machine.attach(intent, method.id)
    _insert(context, intent)
    events.happened(context, "payment_intent.created", intent)
    if command.confirm:
        events.of_intent(context, intent)
    return _reply(intent, error)


async def twin(context: Context, intent: JSON) -> None:
    """A second intent of the same kind, held as well, that nobody has asked for: what a faulty processor does."""
    fresh = {**intent, "id": new_id("pi"), "latest_charge": None, "status": "requires_payment_method"}
    method = await payment_methods.use(context, "pm_card_visa", fresh["id"])
    charge = charges.succeed(context, fresh, method, authenticated=False)
    _insert(context, machine.authorized(machine.attach(fresh, method.id), charge["id"]))


def _insert(context: Context, intent: JSON) -> None:
    context.write(
        """
        INSERT INTO processor.payment_intent (id, account, created, customer, metadata, document)
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
        """,
        intent["id"],
        context.account,
        intent["created"],
        intent["customer"],
        intent["metadata"],
        context.changing(intent["id"], intent),
    )


async def confirm(context: Context, intent_id: str, command: Confirm) -> Reply:
    """Try to pay. 200, or 402 with the intent inside the error."""
    intent = await lock(context, intent_id)
    machine.check_confirmable(intent, command.attempt.method)  # a refusal shows the intent without the new fields
    intent, error = await _attempt(context, {**intent, **command.fields}, command.attempt)
    store(context, intent)
    events.of_intent(context, intent)
    return _reply(intent, error)


async def update(context: Context, intent_id: str, command: Update) -> Reply:
    """Change what may still be changed; a payment method waits for confirmation."""
    intent = await lock(context, intent_id)
    if command.amount is not None or command.currency is not None:
        amount, currency = command.amount or intent["amount"], command.currency or intent["currency"]
        check_amount(amount, currency)
        intent = machine.repriced(intent, amount, currency)
    if command.method:
        method = await payment_methods.resolve(context, command.method, intent_id)
        intent = machine.attach(intent, method.id)
    intent = {**intent, **command.fields, "metadata": merged_metadata(intent["metadata"], command.metadata)}
    store(context, intent)
    return Reply(200, intent)


async def capture(context: Context, intent_id: str, command: Capture) -> Reply:
    """Take all or a part of what is held; the rest is let go."""
    intent = await lock(context, intent_id)
    intent = machine.captured(intent, command.amount)
    intent = {**intent, **command.fields, "metadata": merged_metadata(intent["metadata"], command.metadata)}
    charges.capture(context, intent, intent["amount_received"])
    store(context, intent)
    events.of_intent(context, intent)
    return Reply(200, intent)


async def cancel(context: Context, intent_id: str, reason: str | None) -> Reply:
    """Give up the intent and let go of what it holds."""
    intent = await lock(context, intent_id)
    ended = machine.canceled(intent, reason, context.now)
    if intent["status"] == "requires_capture":
        charges.void(context, intent)
    store(context, ended)
    events.of_intent(context, ended)
    return Reply(200, ended)


async def authenticated(context: Context, intent_id: str, *, passed: bool) -> JSON:
    """The shopper came back from the 3-D Secure page. Answers the intent; nothing changes unless it was waiting."""
    intent = await lock(context, intent_id)
    if intent["status"] != "requires_action":
        return intent
    method = await payment_methods.resolve(context, intent["payment_method"], intent_id)
    if not passed:
        intent = machine.declined(intent, None, {**AUTHENTICATION_FAILED, "payment_method": method.document})
    elif method.card.challenge == "always" and method.card.decline:
        intent, _ = _decline(context, intent, method, method.card.decline)
    else:
        charge = charges.succeed(context, intent, method, authenticated=True)
        intent = machine.authorized(intent, charge["id"])
    store(context, intent)
    events.of_intent(context, intent)
    return intent


async def load(context: Context, intent_id: str) -> JSON:
    """The document. Raises StripeError 404."""
    document: JSON | None = await context.connection.fetchval(
        "SELECT document FROM processor.payment_intent WHERE id = $1 AND account = $2", intent_id, context.account
    )
    if document is None:
        raise resource_missing("payment_intent", intent_id, "intent", 404)
    return document


async def lock(context: Context, intent_id: str) -> JSON:
    """The document, held until it is stored. Raises StripeError 404, or 429 if another write holds it."""
    row = await context.lock("lock_intent", context.account, intent_id)
    if not row["locked"]:
        context.lost()
    if row["document"] is None:
        raise resource_missing("payment_intent", intent_id, "intent", 404)
    if not row["locked"]:
        raise lock_timeout("PaymentIntent")
    document: JSON = row["document"]
    return document


def store(context: Context, intent: JSON) -> None:
    """Write a changed intent. A row that somebody holds by plain SQL is not waited for."""
    context.write(
        """
        UPDATE processor.payment_intent SET customer = $2, metadata = $3, document = $4::text::jsonb
        WHERE id = (SELECT id FROM processor.payment_intent WHERE id = $1 FOR UPDATE NOWAIT)
        """,
        intent["id"],
        intent["customer"],
        intent["metadata"],
        context.changing(intent["id"], intent),
    )


async def _attempt(context: Context, intent: JSON, attempt: Attempt) -> tuple[JSON, JSON | None]:
    """One try: the intent after it, and the card error if the issuer refused."""
    machine.check_confirmable(intent, attempt.method)
    _check_return_url(intent, attempt)
    method = await payment_methods.use(context, attempt.method or intent["payment_method"], intent["id"])
    intent = machine.attach(intent, method.id)
    answer = machine.outcome(method.card, off_session=attempt.off_session, error_on_action=attempt.error_on_action)
    if answer == "challenge":
        return machine.challenged(intent, _next_action(context, intent, attempt)), None
    if isinstance(answer, Decline):
        on_session_refusal = answer is AUTHENTICATION_REQUIRED and not attempt.off_session
        shown = replace(answer, decline_code=None) if on_session_refusal else answer
        return _decline(context, intent, method, shown)
    charge = charges.succeed(context, intent, method, authenticated=False)
    return machine.authorized(intent, charge["id"]), None


def _decline(context: Context, intent: JSON, method: payment_methods.Method, decline: Decline) -> tuple[JSON, JSON]:
    charge = charges.fail(context, intent, method, decline)
    error = {**decline.error(), "charge": charge["id"], "payment_method": method.document}
    return machine.declined(intent, charge["id"], error), error


def _reply(intent: JSON, error: JSON | None) -> Reply:
    if error is None:
        return Reply(200, intent)
    body = {"error": {**error, "payment_intent": intent}}
    return Reply(402, body, {"Stripe-Should-Retry": "false"})


def _check_return_url(intent: JSON, attempt: Attempt) -> None:
    automatic = intent["automatic_payment_methods"]
    if automatic and automatic["enabled"] and automatic["allow_redirects"] != "never" and not attempt.return_url:
        raise refused(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of "
            "these payment methods might redirect your customer off of your page, you must provide a `return_url`. "
            "If you don't want to accept redirect-based payment methods, set "
            "`automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` to "
            "`never` when creating Setup Intents and Payment Intents.",
            intent=intent,
        )


def _next_action(context: Context, intent: JSON, attempt: Attempt) -> dict[str, Any]:
    """Where the shopper proves who they are. The page keeps the way back in its address."""
    page = f"{context.base_url}/test/3ds/{intent['id']}?client_secret={intent['client_secret']}"
    if attempt.return_url and not attempt.use_sdk:
        redirect = {"return_url": attempt.return_url, "url": page}
        return {"type": "redirect_to_url", "redirect_to_url": redirect}
    sdk = {"type": "three_d_secure_redirect", "stripe_js": page, "source": new_id("src")}
    return {"type": "use_stripe_sdk", "use_stripe_sdk": sdk}


def new_document(now: int, command: Create) -> JSON:
    """A fresh intent with every documented member, null where unset."""
    id_ = new_id("pi")
    unset = (
        *("application", "application_fee_amount", "automatic_payment_methods", "canceled_at", "cancellation_reason"),
        *("customer", "customer_account", "description", "excluded_payment_method_types", "last_payment_error"),
        *("latest_charge", "next_action", "on_behalf_of", "payment_method", "payment_method_configuration_details"),
        *("processing", "receipt_email", "review", "setup_future_usage", "shipping", "source"),
        *("statement_descriptor", "statement_descriptor_suffix", "transfer_data", "transfer_group"),
    )
    card = {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
    return {
        "id": id_,
        "object": "payment_intent",
        **dict.fromkeys(unset),
        "amount": command.amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "capture_method": "automatic_async",
        "client_secret": f"{id_}_secret_{random_text(25)}",
        "created": now,
        "currency": command.currency,
        "livemode": False,
        "managed_payments": {"enabled": False},
        "metadata": merged_metadata({}, command.metadata),
        "payment_method_options": {"card": card},
        "status": "requires_payment_method",
        **command.fields,
    }
