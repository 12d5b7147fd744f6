"""Typed reading of request parameters. Every refusal is a 400 with `param`, and no idempotency key remembers it."""

import re
from collections.abc import Collection
from typing import Any

from processor.errors import invalid_request
from processor.forms import JSON

INTEGER = re.compile(r"-?[0-9]{1,15}")


class Params:
    """The parameters of one call, checked against the names that the call knows."""

    def __init__(self, raw: JSON, known: Collection[str]) -> None:
        """Raises StripeError 400 `parameter_unknown` that lists every unknown name."""
        unknown = [name for name in raw if name not in known]
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            message = f"Received unknown parameter{plural}: {', '.join(unknown)}"
            raise invalid_request(message, param=unknown[0], code="parameter_unknown")
        self.raw = raw

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def text(self, name: str, longest: int = 5000) -> str | None:
        """None when absent or empty (an empty value clears a field)."""
        value = self.raw.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise invalid_request(f"Invalid string: {value}", param=name)
        if len(value) > longest:
            message = f"Invalid string: {value[:20]}...; must be at most {longest} characters"
            raise invalid_request(message, param=name, code="parameter_invalid_string")
        return value

    def required_text(self, name: str) -> str:
        """Raises StripeError 400 `parameter_missing`, or `parameter_invalid_empty`."""
        if name not in self.raw:
            raise _missing(name)
        value = self.text(name)
        if value is None:
            message = f"You passed an empty string for '{name}'."
            raise invalid_request(message, param=name, code="parameter_invalid_empty")
        return value

    def integer(self, name: str, *, least: int | None = None, most: int | None = None) -> int | None:
        """None when absent. Raises StripeError 400 `parameter_invalid_integer`."""
        if name not in self.raw:
            return None
        number = as_integer(self.raw[name], name)
        if least is not None and number < least:
            message = f"This value must be greater than or equal to {least}."
            raise invalid_request(message, param=name, code="parameter_invalid_integer")
        if most is not None and number > most:
            message = f"This value must be less than or equal to {most}."
            raise invalid_request(message, param=name, code="parameter_invalid_integer")
        return number

    def required_integer(self, name: str, *, least: int) -> int:
        """Raises StripeError 400 `parameter_missing` or `parameter_invalid_integer`."""
        number = self.integer(name, least=least)
        if number is None:
            raise _missing(name)
        return number

    def boolean(self, name: str) -> bool | None:
        """None when absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        if value not in ("true", "false"):
            raise invalid_request(f"Invalid boolean: {value}", param=name)
        return bool(value == "true")

    def choice(self, name: str, options: Collection[str]) -> str | None:
        """None when absent or empty; else one of `options`."""
        value = self.text(name)
        if value is not None and value not in options:
            raise invalid_request(f"Invalid {name}: must be one of {', '.join(options)}", param=name)
        return value

    def hash(self, name: str) -> JSON | None:
        """A nested object; None when absent or empty."""
        value = self.raw.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise invalid_request("Invalid hash", param=name)
        return value

    def texts(self, name: str) -> list[str]:
        """An array of strings; empty when absent."""
        value = self.raw.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise invalid_request("Invalid array", param=name)
        return value

    def metadata(self) -> dict[str, str] | None:
        """The changes to metadata: None when absent, `{}` when all is to be cleared."""
        if "metadata" not in self.raw:
            return None
        changes = self.hash("metadata") or {}
        if len(changes) > 50:
            raise invalid_request("Metadata can have at most 50 keys.", param="metadata")
        for key, value in changes.items():
            _check_metadata(key, value)
        return changes


def as_integer(value: Any, param: str) -> int:
    """The number that a parameter's text stands for."""
    if not isinstance(value, str) or not INTEGER.fullmatch(value):
        raise invalid_request(f"Invalid integer: {value}", param=param, code="parameter_invalid_integer")
    return int(value)


def merged_metadata(old: dict[str, str], changes: dict[str, str] | None) -> dict[str, str]:
    """Changes are merged; an empty value deletes its key; an empty set of changes deletes all."""
    if changes is None:
        return old
    if not changes:
        return {}
    return {key: value for key, value in {**old, **changes}.items() if value != ""}


def _check_metadata(key: str, value: Any) -> None:
    if len(key) > 40:
        raise invalid_request(f"Metadata keys can be at most 40 characters: {key[:60]}", param="metadata")
    if not isinstance(value, str):
        raise invalid_request("Metadata values must be strings.", param=f"metadata[{key}]")
    if len(value) > 500:
        raise invalid_request("Metadata values can be at most 500 characters.", param=f"metadata[{key}]")


def _missing(name: str) -> Exception:
    return invalid_request(f"Missing required param: {name}.", param=name, code="parameter_missing")
