"""Medians, spreads, tables for a terminal, JSON for whoever wants to compare."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import machine, versions

console = Console(width=110)


@dataclass(frozen=True)
class Summary:
    """Of one figure over the rounds of a run: the median, and how far the rounds are apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Summary":
        return cls(statistics.median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        return f"{self.median:,.1f} ({self.least:,.1f} to {self.most:,.1f})"


@dataclass(frozen=True)
class Bar:
    """What must be reached: `figure` at least (or, with `at_most`, at most) `limit`."""

    name: str
    figure: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit


def percentile(figures: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` 0.95 is p95."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print it: the first column is text, the others are figures."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for nth, column in enumerate(columns):
        drawn.add_column(column, justify="right" if nth else "left")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn, "")


def bars(wanted: Sequence[Bar]) -> bool:
    """Print each bar with what was reached; whether all were met."""
    for bar in wanted:
        sign = "≤" if bar.at_most else "≥"
        verdict = "[green]met[/]" if bar.met else "[red]missed[/]"
        console.print(f"{bar.name}: {bar.figure:.2f}, bar {sign} {bar.limit:g}: {verdict}")
    return all(bar.met for bar in wanted)


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """The run's figures with machine, versions and time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(), "versions": versions()}
    path.write_text(json.dumps({**about, **figures}, indent=2) + "\n")
    console.print(f"written to {path}")
