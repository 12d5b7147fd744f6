"""Times on the command line: `24h` ago, or a date."""

import re
from datetime import UTC, datetime, timedelta

import typer

from api.shapes import moment

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str, option: str) -> timedelta:
    """`90s`, `30m`, `24h` or `7d`. Raises typer.BadParameter, naming `option`."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if not found:
        raise typer.BadParameter("a time like 90s, 30m, 24h or 7d", param_hint=option)
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def instant(text: str, option: str) -> datetime:
    """So long ago, or a date or time in ISO 8601 (without a zone: UTC). Raises typer.BadParameter, naming `option`."""
    try:
        return moment(text)
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - duration(text, option)
    except (typer.BadParameter, OverflowError):
        words = "so long ago, like 30m, 24h or 7d, or a time like 2026-07-01 or 2026-07-01T12:00Z"
        raise typer.BadParameter(words, param_hint=option) from None
