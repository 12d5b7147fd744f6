"""What a request asks of an intent or a refund: parameters read once, strictly, before anything is touched."""

from dataclasses import dataclass
from typing import Any

from processor.errors import invalid_request
from processor.forms import JSON
from processor.machine import REASONS
from processor.params import Params

CAPTURE_METHODS = ("automatic", "automatic_async", "manual")
LARGEST = 99_999_999
# the smallest charge by currency, in minor units
SMALLEST = {
    **dict.fromkeys(("usd", "eur", "chf", "aud", "brl", "cad", "inr", "jpy", "nzd", "sgd"), 50),
    **dict.fromkeys(("bgn", "cop", "ils", "krw", "php", "uah", "vnd", "clp", "idr", "zar"), 100),
    **{"gbp": 30, "dkk": 250, "nok": 300, "sek": 300, "pln": 200, "ron": 200, "myr": 200, "aed": 200},
    **{"hkd": 400, "mxn": 1000, "thb": 1000, "czk": 1500, "huf": 17500, "isk": 100, "try": 100, "cny": 400},
}
TEXTS = ("description", "receipt_email", "setup_future_usage", "statement_descriptor", "statement_descriptor_suffix")
HASHES = ("shipping", "transfer_data")
ECHOED = (*TEXTS, "transfer_group", "on_behalf_of", "customer", "customer_account")
COMMON = (
    *("allowed_payment_method_types", "amount_details", "excluded_payment_method_types", "expand", "hooks"),
    *("payment_details", "payment_method", "payment_method_data", "payment_method_options", *TEXTS, "shipping"),
)
OF_ATTEMPT = (
    *("capture_method", "confirmation_token", "error_on_requires_action", "mandate", "mandate_data", "off_session"),
    *("radar_options", "return_url", "use_stripe_sdk"),
)
OF_UPDATE = (
    *("amount", "application_fee_amount", "capture_method", "currency", "customer", "customer_account", "metadata"),
    *("payment_method_configuration", "payment_method_types", "transfer_data", "transfer_group"),
)
CREATE = (
    *COMMON,
    *OF_ATTEMPT,
    *OF_UPDATE,
    *("automatic_payment_methods", "confirm", "confirmation_method", "on_behalf_of"),
)
CONFIRM = (*COMMON, *OF_ATTEMPT, "amount_to_confirm")
UPDATE = (*COMMON, *OF_UPDATE)
CAPTURE = (
    *("amount_details", "amount_to_capture", "application_fee_amount", "expand", "final_capture", "hooks", "metadata"),
    *("payment_details", "statement_descriptor", "statement_descriptor_suffix", "transfer_data"),
)
REFUND = (
    *("amount", "charge", "currency", "customer", "expand", "instructions_email", "metadata", "origin"),
    *("payment_intent", "reason", "refund_application_fee", "reverse_transfer"),
)


@dataclass(frozen=True)
class Attempt:
    """One try to pay: what confirm says, and create with `confirm`."""

    method: str | None
    off_session: bool
    error_on_action: bool
    return_url: str | None
    use_sdk: bool


@dataclass(frozen=True)
class Create:
    """`fields` are members of the intent that are stored as given."""

    amount: int
    currency: str
    fields: JSON
    metadata: dict[str, str] | None
    confirm: bool
    attempt: Attempt


@dataclass(frozen=True)
class Confirm:
    fields: JSON
    attempt: Attempt


@dataclass(frozen=True)
class Update:
    """`amount` and `currency` None: unchanged."""

    amount: int | None
    currency: str | None
    fields: JSON
    metadata: dict[str, str] | None
    method: str | None


@dataclass(frozen=True)
class Capture:
    """`amount` None: everything that is held."""

    amount: int | None
    metadata: dict[str, str] | None
    fields: JSON


@dataclass(frozen=True)
class Refund:
    """`amount` None: what is left. Exactly one of intent and charge is needed to find the money."""

    intent: str | None
    charge: str | None
    amount: int | None
    reason: str | None
    metadata: dict[str, str] | None


def read_create(raw: JSON) -> Create:
    """Parameters of POST /v1/payment_intents."""
    params = Params(raw, CREATE)
    amount = params.required_integer("amount", least=1)
    currency = _known_currency(params.required_text("currency"))
    check_amount(amount, currency)
    fields = _fields(params) | {"payment_method_types": params.texts("payment_method_types") or ["card"]}
    automatic = params.hash("automatic_payment_methods")
    if automatic:
        enabled = automatic.get("enabled") == "true"
        redirects = automatic.get("allow_redirects") or "always"
        fields["automatic_payment_methods"] = {"allow_redirects": redirects, "enabled": enabled}
    fields["confirmation_method"] = params.choice("confirmation_method", ("automatic", "manual")) or "automatic"
    confirm = params.boolean("confirm") or False
    if not confirm and params.boolean("off_session"):
        raise invalid_request("`off_session` can only be passed when `confirm` is true.", param="off_session")
    return Create(amount, currency, fields, params.metadata(), confirm, _attempt(params))


def read_confirm(raw: JSON) -> Confirm:
    """Parameters of POST /v1/payment_intents/{id}/confirm."""
    params = Params(raw, CONFIRM)
    return Confirm(_fields(params), _attempt(params))


def read_update(raw: JSON) -> Update:
    """Parameters of POST /v1/payment_intents/{id}."""
    params = Params(raw, UPDATE)
    amount = params.integer("amount", least=1)
    fields = _fields(params)
    if "payment_method_types" in params:
        fields["payment_method_types"] = params.texts("payment_method_types") or ["card"]
    return Update(amount, _currency(params), fields, params.metadata(), _method(params))


def read_capture(raw: JSON) -> Capture:
    """Parameters of POST /v1/payment_intents/{id}/capture."""
    params = Params(raw, CAPTURE)
    if params.boolean("final_capture") is False:
        message = "`final_capture` can only be false when multicapture is available for the payment."
        raise invalid_request(message, param="final_capture")
    return Capture(params.integer("amount_to_capture", least=1), params.metadata(), _fields(params))


def read_cancel(raw: JSON) -> str | None:
    """Parameters of POST /v1/payment_intents/{id}/cancel: the reason."""
    return Params(raw, ("cancellation_reason", "expand")).choice("cancellation_reason", REASONS)


def read_refund(raw: JSON) -> Refund:
    """Parameters of POST /v1/refunds."""
    params = Params(raw, REFUND)
    intent, charge = params.text("payment_intent"), params.text("charge")
    if intent is None and charge is None:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise invalid_request(message, code="parameter_missing", param="payment_intent")
    reason = params.choice("reason", ("duplicate", "fraudulent", "requested_by_customer"))
    return Refund(intent, charge, params.integer("amount", least=1), reason, params.metadata())


def check_amount(amount: int, currency: str) -> None:
    """Raises StripeError 400 amount_too_small or amount_too_large."""
    if amount < SMALLEST[currency]:
        message = f"Amount must be at least {SMALLEST[currency]} in the smallest unit of {currency}"
        raise invalid_request(message, code="amount_too_small", param="amount")
    if amount > LARGEST:
        message = f"Amount must be no more than {LARGEST} in the smallest unit of {currency}"
        raise invalid_request(message, code="amount_too_large", param="amount")


def _currency(params: Params) -> str | None:
    value = params.text("currency")
    return None if value is None else _known_currency(value)


def _known_currency(value: str) -> str:
    if value.lower() not in SMALLEST:
        raise invalid_request(f"Invalid currency: {value[:20]}.", param="currency")
    return value.lower()


def _fields(params: Params) -> JSON:
    """Members of the intent that this call sets; an empty value clears one."""
    fields: dict[str, Any] = {name: params.text(name) for name in ECHOED if name in params}
    fields |= {name: params.hash(name) for name in HASHES if name in params}
    if "application_fee_amount" in params:
        fields["application_fee_amount"] = params.integer("application_fee_amount", least=0)
    if method := params.choice("capture_method", CAPTURE_METHODS):
        fields["capture_method"] = method
    return fields


def _attempt(params: Params) -> Attempt:
    off_session = params.raw.get("off_session")
    return Attempt(
        method=_method(params),
        off_session=off_session in ("recurring", "one_off") or bool(params.boolean("off_session")),
        error_on_action=params.boolean("error_on_requires_action") or False,
        return_url=params.text("return_url"),
        use_sdk=params.boolean("use_stripe_sdk") or False,
    )


def _method(params: Params) -> str | None:
    """The named method; `payment_method_data[card][token]=tok_x` stands for `pm_card_x`."""
    data = params.hash("payment_method_data")
    if data is None:
        return params.text("payment_method", 255)
    card = data.get("card")
    token = card.get("token") if isinstance(card, dict) else None
    if not isinstance(token, str) or not token.startswith("tok_"):
        message = "Sending credit card numbers directly to the Stripe API is generally unsafe. Use test tokens instead."
        raise invalid_request(message, param="payment_method_data")
    return "pm_card_" + token.removeprefix("tok_")
