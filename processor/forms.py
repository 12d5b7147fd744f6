"""Form and query parameters: `a[b][c]=v` to nested dicts, `a[0]=v` and `a[]=v` to lists."""

import re
from typing import Any
from urllib.parse import parse_qsl

from processor.errors import invalid_request

JSON = dict[str, Any]

MAX_FIELDS = 1000
MAX_DEPTH = 8
NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
PART = re.compile(r"\[([^\[\]]*)\]")


def parse_form(text: str) -> JSON:
    """Decode a form body or a query string (brackets literal or percent-encoded).

    Raises StripeError 400 for names that do not parse or contradict each other.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise invalid_request("Invalid request: the parameters could not be decoded.") from None
    tree: JSON = {}
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            raise invalid_request("Invalid string: null bytes are not allowed.", param=name.replace("\0", ""))
        _put(tree, _path(name), name, value)
    return {name: value if name == "metadata" else _with_lists(value) for name, value in tree.items()}


def _path(name: str) -> list[str]:
    match = NAME.fullmatch(name)
    path = [match[1], *PART.findall(match[2])] if match else []
    if not path or len(path) > MAX_DEPTH:
        raise invalid_request(f"Invalid parameter name: {name[:100]}", param=name[:100])
    return path


def _put(tree: JSON, path: list[str], name: str, value: str) -> None:
    node = tree
    for part in path[:-1]:
        child = node.setdefault(part or str(len(node)), {})
        if not isinstance(child, dict):
            raise invalid_request("Invalid hash", param=name)
        node = child
    last = path[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise invalid_request("Invalid hash", param=name)
    node[last] = value


def _with_lists(value: Any) -> Any:
    """A dict whose keys are all numbers was an array. Metadata is spared: its keys may be numbers."""
    if not isinstance(value, dict):
        return value
    inner = {name: child if name == "metadata" else _with_lists(child) for name, child in value.items()}
    if inner and all(name.isdecimal() and len(name) < 9 for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner
