"""How the commands write to a terminal."""

import os
import sys
from typing import Any

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 100


def console(*, stderr: bool = False) -> Console:
    """A console that is as wide as the terminal, and 100 columns where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, highlight=False)


def money(value: dict[str, Any] | None) -> str:
    """`{amount, currency}` of the API as people write it; `-` for none."""
    if value is None:
        return "-"
    sign, amount = "-" if value["amount"] < 0 else "", abs(value["amount"])
    return f"{sign}{amount // 100}.{amount % 100:02d} {value['currency']}"


def fail(words: str) -> SystemExit:
    """Say it on stderr; the caller raises what is returned."""
    sys.stderr.write(words + "\n")
    return SystemExit(1)
