"""The error tree. Services raise these; each edge (HTTP, Temporal) translates them once.

MercatoError                     code, HTTP status, retryable or not
├── InvalidCredentials           401 invalid_credentials
├── Unauthenticated              401 unauthenticated
├── PaymentRequired              402 payment_declined
├── Forbidden                    403 forbidden
├── NotFound                     404 not_found (also: somebody else's)
├── InvalidRequest               422 validation_error, or a code of its own
├── BadRequest                   400 bad_request, or a code of its own
├── Conflict                     409 conflict, or a code of its own
├── TooManyRequests              429 too_many_requests
└── Unavailable                  503 dependency_unavailable; the only one worth a retry
"""

from typing import Any, ClassVar


class MercatoError(Exception):
    """A refusal with a stable `code`; `extra` fields go into the problem document as they are."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, code: str | None = None, retry_after: int | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.retry_after = retry_after  # seconds
        self.extra = extra
        self.headers: dict[str, str] = {}  # for the HTTP answer, beside Retry-After


class InvalidCredentials(MercatoError):
    status, default_code = 401, "invalid_credentials"


class Unauthenticated(MercatoError):
    status, default_code = 401, "unauthenticated"


class PaymentRequired(MercatoError):
    status, default_code = 402, "payment_declined"


class Forbidden(MercatoError):
    status, default_code = 403, "forbidden"


class NotFound(MercatoError):
    status, default_code = 404, "not_found"


class BadRequest(MercatoError):
    status, default_code = 400, "bad_request"


class InvalidRequest(MercatoError):
    status, default_code = 422, "validation_error"


class Conflict(MercatoError):
    status, default_code = 409, "conflict"


class TooManyRequests(MercatoError):
    status, default_code = 429, "too_many_requests"


class Unavailable(MercatoError):
    status, default_code = 503, "dependency_unavailable"
    retryable = True

    def __init__(self, detail: str, *, code: str | None = None, retry_after: int | None = 2, **extra: Any) -> None:
        super().__init__(detail, code=code, retry_after=retry_after, **extra)
