"""Everything the processor says no with. The official client picks its exception class from the HTTP status.

`saved` tells whether an idempotency key remembers the error: what fails before the endpoint begins (authentication,
parameter validation, limits, conflicts) is not remembered, so the same key may be tried again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DOCS = "https://stripe.com/docs/error-codes/"


@dataclass(frozen=True)
class Reply:
    """An HTTP status with its JSON body; `text` is the body encoded, once it is."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None


class StripeError(Exception):
    """An error reply; `details` are the further members of the `error` object."""

    def __init__(
        self,
        status: int,
        type_: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        saved: bool = True,
        headers: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.saved = saved
        self.headers = dict(headers or {})
        self.error: dict[str, Any] = {"message": message, "type": type_, **details}
        if param is not None:
            self.error["param"] = param
        if code is not None:
            self.error.update(code=code, doc_url=DOCS + code.replace("_", "-"))

    def reply(self) -> Reply:
        """The error as it goes out."""
        headers = {"Stripe-Should-Retry": "false"} if self.status in (400, 401, 402, 403, 404, 413) else {}
        return Reply(self.status, {"error": self.error}, {**headers, **self.headers})


def invalid_request(message: str, *, param: str | None = None, code: str | None = None) -> StripeError:
    """400 of parameter validation."""
    return StripeError(400, "invalid_request_error", message, param=param, code=code, saved=False)


def refused(
    message: str, *, param: str | None = None, code: str | None = None, intent: dict[str, Any] | None = None
) -> StripeError:
    """400 of an endpoint that had begun: well-formed, and not possible now."""
    details: dict[str, Any] = {"payment_intent": intent} if intent else {}
    return StripeError(400, "invalid_request_error", message, param=param, code=code, **details)


def unexpected_state(message: str, intent: dict[str, Any], *, param: str | None = None) -> StripeError:
    """400 with the full intent, which says what state it is in."""
    return refused(message, code="payment_intent_unexpected_state", param=param, intent=intent)


def resource_missing(kind: str, id_: str, param: str, status: int = 400) -> StripeError:
    """404 when the id stood in the path, 400 when it stood in the parameters."""
    message = f"No such {kind}: '{id_}'"
    return StripeError(status, "invalid_request_error", message, code="resource_missing", param=param)


def unrecognized_url(method: str, path: str) -> StripeError:
    """404 for a path or method that the API does not have."""
    message = (
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs "
        "or we can help at https://support.stripe.com/."
    )
    return StripeError(404, "invalid_request_error", message, saved=False)


def unauthenticated(message: str) -> StripeError:
    """401 without a code."""
    return StripeError(401, "invalid_request_error", message, saved=False)


def idempotency_error(message: str) -> StripeError:
    """400: the key belongs to another request."""
    return StripeError(400, "idempotency_error", message, saved=False)


def key_in_use(key: str) -> StripeError:
    """409: the first request with this key has not ended; the client asks again."""
    message = (
        f"There is currently another in-progress request using this Idempotent Key ({key}), "
        "which probably means you submitted twice, and the other request is still going through."
    )
    return StripeError(409, "idempotency_error", message, code="idempotency_key_in_use", saved=False)


def lock_timeout(kind: str) -> StripeError:
    """429: another write on the same object is under way. The header lets the client try again by itself."""
    message = (
        f"This object cannot be accessed right now because another in-progress request using this Stripe {kind} "
        "is currently accessing it. If you see this error intermittently, retry the request."
    )
    headers = {"Stripe-Should-Retry": "true"}
    return StripeError(429, "invalid_request_error", message, code="lock_timeout", saved=False, headers=headers)


def rate_limited() -> StripeError:
    """429 of the request limiter; the official client does not retry it by itself."""
    headers = {"Stripe-Rate-Limited-Reason": "global-rate", "Stripe-Should-Retry": "false"}
    message = "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits."
    return StripeError(429, "invalid_request_error", message, code="rate_limit", saved=False, headers=headers)


def api_error(status: int = 500, *, saved: bool = True) -> StripeError:
    """5xx: something went wrong on the processor's side."""
    message = "An unknown error occurred. If the error persists, please contact support."
    return StripeError(status, "api_error", message, saved=saved)
