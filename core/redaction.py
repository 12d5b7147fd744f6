"""What may not be read in a log: secrets and personal data, told by the name they go under or by their look."""

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

_SECRET_WORDS = (
    r"pass(?:word|wd|phrase)|secret(?:_?key)?|token|authorization|cookie|api_?key|signing_?key|credential|jwt"
    r"|e_?mails?|phone|full_?name|first_?name|last_?name|recipient|postal_?code|zip(?:_?code)?|street|city|line_?[12]"
    r"|(?:shipping|billing|delivery|home|postal)_?address|payment_?method(?:_?id)?"
)
_SECRET_KEY = re.compile(rf"(?:{_SECRET_WORDS})s?(?:_?hash)?$|^address$", re.IGNORECASE)
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b((?:set-)?cookie|(?:proxy-)?authorization)(['\"]?\s*[:=]\s*)[^\r\n]+"), rf"\1\2{REDACTED}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), REDACTED),
    (re.compile(r"\b(pm|sk_test|sk_live|rk_live|whsec|seti)_[A-Za-z0-9_]+"), rf"\1_{REDACTED}"),
    (re.compile(r"\b(pi_[A-Za-z0-9]+)_secret_[A-Za-z0-9]+"), rf"\1_secret_{REDACTED}"),
    (re.compile(r"(://[^\s:/@]*):[^\s@/]+@"), rf"\1:{REDACTED}@"),
    (re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"), REDACTED),
    # what database and validation errors quote of the data they refused
    (re.compile(r"(?s)\[parameters: .*?\]\n|\[parameters: .*\]"), f"[parameters: {REDACTED}]\n"),
    (re.compile(r"(DETAIL:\s*)[^\r\n]+"), rf"\1{REDACTED}"),
    (re.compile(r"(?s)input_value=.*?, input_type="), f"input_value={REDACTED}, input_type="),
    (
        re.compile(
            rf"(?i)(['\"]?\b[\w-]*(?:{_SECRET_WORDS})s?['\"]?\s*[:=]\s*)({_QUOTED}|\{{[^{{}}]*\}}|\w+\([^()]*\)|[^\s,;&}}\])]+)"
        ),
        rf"\1{REDACTED}",
    ),
)

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def redact_text(text: str) -> str:
    """`text` without what looks like a secret, an e-mail address, a payment method or an address field."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact(key: str, value: Any) -> Any:
    """`value` as it may be logged under `key`; mappings and sequences are walked."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    if _SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, Mapping):
        return {str(inner): redact(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact("", item) for item in value]
    return one_line(redact_text(str(value)))


def one_line(text: str) -> str:
    """Control characters written as escapes, so that nobody's input can begin a log line of its own."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
