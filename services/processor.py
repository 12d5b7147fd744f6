"""The gateway to the payment processor: Stripe's API through its official client.

It translates, and decides nothing: answers become `Intent`, refusals one of four exceptions that say how sure the
answer is. The client retries nothing by itself; who calls knows which key is safe to use again.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

import aiohttp
import stripe
from loguru import logger

from core.settings import Settings
from models.errors import Unavailable
from models.types import Money

stripe.enable_telemetry = False  # no timing of our requests in a header of the next one


class ProcessorUnavailable(Unavailable):
    """No certain answer: timeout, lost connection, 5xx, 429, key in use. The effect may have taken place.

    `server_error` tells a 5xx, which the processor may have stored under the key and would then repeat for ever.
    """

    def __init__(self, detail: str, *, server_error: bool = False) -> None:
        super().__init__(detail)
        self.server_error = server_error


class ProcessorMisconfigured(Unavailable):
    """Key, rights or parameters are wrong: nothing took place, and a person has to look."""

    default_code = "processor_misconfigured"


class CardDeclined(Exception):
    """The issuer said no for certain. `charge_id` is the failed charge, if one was made."""

    def __init__(self, code: str, charge_id: str | None) -> None:
        super().__init__(code)
        self.code = code
        self.charge_id = charge_id


class RequestRefused(Exception):
    """400 or 404: this request had no effect and never will; the reason is in `code` and `param`."""

    def __init__(self, code: str | None, param: str | None) -> None:
        super().__init__(f"{code} ({param})")
        self.code = code
        self.param = param

    @property
    def is_state(self) -> bool:
        """The intent is in another state than thought: look at it again."""
        return self.code == "payment_intent_unexpected_state"

    @property
    def is_payment_method(self) -> bool:
        """No such payment method, or not one that can be used."""
        return self.param == "payment_method" or (self.code or "").startswith("payment_method")


@dataclass(frozen=True)
class Intent:
    """What we read of a payment intent; amounts in minor units, currency in capitals as everywhere here.

    `failed_charge` and `decline_code` describe the last attempt if it failed.
    """

    id: str
    status: str
    amount: int
    currency: str
    order_id: str | None
    amount_capturable: int
    amount_received: int
    latest_charge: str | None
    failed_charge: str | None = None
    decline_code: str | None = None
    created: int = 0  # seconds since 1970
    action_url: str | None = None  # where the shopper authenticates, while it `requires_action`


@dataclass(frozen=True)
class GivenBack:
    """A refund; `pending`: on its way, `succeeded`, `failed` or `canceled`: nothing was given back."""

    id: str
    status: str
    amount: int

    @property
    def counts(self) -> bool:
        return self.status in ("pending", "requires_action", "succeeded")


class Processor:
    """One client with one connection pool; safe to share between tasks. Made in a running event loop."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError without an address: the client would otherwise talk to the real Stripe."""
        if not settings.processor_url:
            raise ValueError("MERCATO_PROCESSOR_URL must be set")
        seconds = settings.processor_timeout_seconds
        # A proxy named in the environment is the way to the outside, not to a mock beside us.
        self._http = aiohttp.ClientSession(trust_env=settings.processor_url.startswith("https://"))
        timeout = aiohttp.ClientTimeout(total=seconds, connect=min(2.0, seconds))
        client = stripe.StripeClient(
            settings.processor_api_key.get_secret_value(),
            base_addresses={"api": settings.processor_url.rstrip("/")},
            http_client=stripe.AIOHTTPClient(timeout=timeout, session=self._http),
            max_network_retries=0,
        )
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._return_url = settings.return_url or f"{settings.public_url.rstrip('/')}/api/orders/{{order_id}}"

    async def aclose(self) -> None:
        await self._http.close()

    async def create(self, order_id: UUID, amount: Money, key: str) -> Intent:
        """An intent for the order, not confirmed: no money moves. Repeated with the same key: the same intent."""
        try:
            return _read(
                await self._intents.create_async(
                    {
                        "amount": amount.amount,
                        "currency": amount.currency.lower(),
                        "capture_method": "manual",
                        "allowed_payment_method_types": ["card"],
                        "metadata": {"order_id": str(order_id)},
                    },
                    {"idempotency_key": key},
                )
            )
        except _FAILURES as error:
            _raise(error, "create", order_id)

    async def retrieve(self, intent_id: str) -> Intent:
        """The intent as it is now."""
        try:
            return _read(await self._intents.retrieve_async(intent_id))
        except _FAILURES as error:
            _raise(error, "retrieve", intent_id)

    async def confirm(self, intent_id: str, order_id: UUID, payment_method_id: str, key: str) -> Intent:
        """Try this card. If its bank wants to see the shopper, the intent `requires_action`, at its `action_url`.

        Raises:
            CardDeclined: for certain.
        """
        try:
            return _read(
                await self._intents.confirm_async(
                    intent_id,
                    {
                        "payment_method": payment_method_id,
                        "return_url": self._return_url.replace("{order_id}", str(order_id)),
                    },
                    {"idempotency_key": key},
                )
            )
        except _FAILURES as error:
            _raise(error, "confirm", intent_id)

    async def capture(self, intent_id: str, key: str) -> Intent:
        """Take everything that is held."""
        try:
            return _read(await self._intents.capture_async(intent_id, {}, {"idempotency_key": key}))
        except _FAILURES as error:
            _raise(error, "capture", intent_id)

    async def cancel(self, intent_id: str, key: str) -> Intent:
        """Close the intent and let go of what is held; no confirm succeeds after it."""
        try:
            return _read(await self._intents.cancel_async(intent_id, {}, {"idempotency_key": key}))
        except _FAILURES as error:
            _raise(error, "cancel", intent_id)

    async def refund(self, intent_id: str, key: str) -> GivenBack:
        """Give back all that was taken and not given back yet.

        Raises:
            RequestRefused: `charge_already_refunded`: nothing is left of it.
        """
        try:
            return _given_back(
                await self._refunds.create_async({"payment_intent": intent_id}, {"idempotency_key": key})
            )
        except _FAILURES as error:
            _raise(error, "refund", intent_id)

    async def intents_since(self, created: int) -> AsyncIterator[list[Intent]]:
        """Pages of all intents made at `created` (seconds since 1970) or later, newest first."""
        after: dict[str, Any] = {}
        while True:
            params: Any = {"limit": 100, "created": {"gte": created}, **after}
            try:
                page = await self._intents.list_async(params)
                intents = [_read(intent) for intent in page.data]
            except _FAILURES as error:
                _raise(error, "list intents", created)
            if intents:
                yield intents
            if not page.has_more:
                return
            after = {"starting_after": intents[-1].id}

    async def refunds_of(self, intent_id: str) -> list[GivenBack]:
        """The refunds of an intent, newest first, 100 at most."""
        try:
            page = await self._refunds.list_async({"payment_intent": intent_id, "limit": 100})
            return [_given_back(refund) for refund in page.data]
        except _FAILURES as error:
            _raise(error, "list refunds", intent_id)


# The client trips over bodies that are not Stripe's (a proxy's error page) and over those that break off: they tell as
# little as a lost reply.
_FAILURES = (stripe.StripeError, aiohttp.ClientError, OSError, AttributeError, KeyError, TypeError, ValueError)


def _read(intent: stripe.PaymentIntent) -> Intent:
    data: dict[str, Any] = intent.to_dict()
    error: dict[str, Any] = data.get("last_payment_error") or {}
    code = error.get("decline_code") or error.get("code")
    return Intent(
        id=data["id"],
        status=data["status"],
        amount=data["amount"],
        currency=data["currency"].upper(),
        order_id=(data.get("metadata") or {}).get("order_id"),
        amount_capturable=data.get("amount_capturable") or 0,
        amount_received=data.get("amount_received") or 0,
        latest_charge=_id(data.get("latest_charge")),
        failed_charge=(_id(error.get("charge")) or _id(data.get("latest_charge"))) if error else None,
        decline_code=code or ("card_declined" if error else None),
        created=data.get("created") or 0,
        action_url=_action_url(data.get("next_action") or {}),
    )


def _action_url(action: dict[str, Any]) -> str | None:
    redirect: dict[str, Any] = action.get("redirect_to_url") or {}
    return redirect.get("url")


def _given_back(refund: stripe.Refund) -> GivenBack:
    data: dict[str, Any] = refund.to_dict()
    return GivenBack(id=data["id"], status=data["status"], amount=data["amount"])


def _id(reference: Any) -> str | None:
    """The id of a reference, expanded or not."""
    found = reference.get("id") if isinstance(reference, dict) else reference
    return found if isinstance(found, str) else None


def _raise(error: Exception, operation: str, subject: object) -> NoReturn:
    """The client picks its class from the HTTP status; `error.error` holds what the body said."""
    if isinstance(error, stripe.CardError):
        raise _declined(error) from error
    if isinstance(error, stripe.IdempotencyError):
        # A release before this one may have sent something else under this key: it is spent, like one that brought 5xx.
        logger.warning("The key of our {} of {} was used for another request", operation, subject)
        raise ProcessorUnavailable("This key was used for another request.", server_error=True) from error
    if isinstance(error, (stripe.AuthenticationError, stripe.PermissionError)):
        logger.error("The processor refuses our {} of {}: {}", operation, subject, error.user_message)
        raise ProcessorMisconfigured("The payment processor does not accept our requests.") from error
    if isinstance(error, stripe.InvalidRequestError):
        raise RequestRefused(error.code, error.param) from error
    status = error.http_status if isinstance(error, stripe.StripeError) else None
    cause = f"{type(error).__name__}, HTTP {status}" if status else type(error).__name__
    logger.warning("No certain answer of the processor to {} of {} ({})", operation, subject, cause)
    raise ProcessorUnavailable(
        "The payment processor does not answer.", server_error=isinstance(status, int) and status >= 500
    ) from error


def _declined(error: stripe.CardError) -> CardDeclined:
    answer: Any = error.json_body or {}
    body: dict[str, Any] = answer.get("error") or {}
    intent = body.get("payment_intent") or {}
    code = body.get("decline_code") or body.get("code") or "card_declined"
    return CardDeclined(str(code), _id(body.get("charge")) or _id(intent.get("latest_charge")))
