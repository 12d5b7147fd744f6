"""Who asks. Every `sk_test_...` key is an account of its own; the key itself is never stored."""

import base64
import binascii
import hashlib
import re

from processor.errors import unauthenticated

KEY = re.compile(r"sk_test_[A-Za-z0-9_\-]{1,240}")
MISSING = (
    "You did not provide an API key. You need to provide your API key in the Authorization header, "
    "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
)


def account_of(authorization: str | None) -> str:
    """The account id behind an Authorization header: Bearer, or Basic with the key as user name.

    Raises StripeError 401.
    """
    key = _key(authorization or "")
    if not key:
        raise unauthenticated(MISSING)
    if not KEY.fullmatch(key):
        raise unauthenticated(f"Invalid API Key provided: {_masked(key)}")
    return "acct_" + hashlib.sha256(key.encode()).hexdigest()[:20]


def _key(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _masked(key: str) -> str:
    if len(key) <= 12:
        return "*" * len(key)
    return key[:8] + "*" * (len(key) - 12) + key[-4:]
