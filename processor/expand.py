"""`expand`: put the object in the place of its id, up to four levels deep, in single objects and lists."""

from typing import Any

from processor.context import Context
from processor.errors import StripeError, invalid_request
from processor.forms import JSON
from processor.params import Params

# member -> the table that holds what its id stands for
TABLES = {
    "latest_charge": "processor.charge",
    "charge": "processor.charge",
    "payment_intent": "processor.payment_intent",
    "payment_method": "processor.payment_method",
}
MEMBERS = {
    "payment_intent": ("latest_charge", "payment_method"),
    "charge": ("payment_intent",),
    "refund": ("charge", "payment_intent"),
}
DEEPEST = 4


def expansions(raw: JSON, kind: str, *, listed: bool = False) -> list[list[str]]:
    """The paths asked for, checked before anything runs. Raises StripeError 400."""
    paths = [path.split(".") for path in Params(raw, raw.keys()).texts("expand")]
    for path in paths:
        members = path[1:] if listed else path
        if len(path) > DEEPEST:
            raise invalid_request(f"You cannot expand more than {DEEPEST} levels of a property.", param="expand")
        if (listed and path[0] != "data") or not members:
            raise _not_expandable(path)
        _check(members, kind, path)
    return paths


def _check(members: list[str], kind: str, path: list[str]) -> None:
    owner = kind
    for member in members:
        if member not in MEMBERS.get(owner, ()):
            raise _not_expandable(path)
        owner = "charge" if member == "latest_charge" else member


async def expand(context: Context, document: JSON, paths: list[list[str]]) -> JSON:
    """`document` (an object or a page) with its references replaced."""
    for path in paths:
        document = await _expand(context, document, path)
    return document


async def _expand(context: Context, document: JSON, path: list[str]) -> JSON:
    if not path:
        return document
    member, *rest = path
    value = document.get(member)
    if isinstance(value, list):
        return {**document, member: [await _expand(context, item, rest) for item in value]}
    if isinstance(value, str):
        value = await _fetch(context, member, value)
    if value is None:
        return document
    return {**document, member: await _expand(context, value, rest)}


async def _fetch(context: Context, member: str, id_: str) -> Any:
    stored = await context.connection.fetchval(
        f"SELECT document FROM {TABLES[member]} WHERE id = $1 AND account = $2", id_, context.account
    )
    return context.current(id_, stored)


def _not_expandable(path: list[str]) -> StripeError:
    return invalid_request(f"This property cannot be expanded ({'.'.join(path)}).", param="expand")
