"""How a chaos run is told: its plan, one screen at the end, and the same as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.chaos_blows import Struck
from cli.chaos_listeners import ChaosListener
from cli.chaos_plan import Plan
from cli.chaos_shoppers import Story, Tally
from cli.chaos_verdict import Verdict
from cli.stuck import print_stuck

MOST_SHOWN = 10


@dataclass
class Run:
    """Everything that is known of one run."""

    plan: Plan
    directory: Path
    struck: Sequence[Struck] = ()
    stories: Sequence[Story] = ()
    listeners: Sequence[ChaosListener] = ()
    tally: Tally = field(default_factory=Tally)
    verdict: Verdict = field(default_factory=Verdict)
    restarts: dict[str, int] = field(default_factory=dict)


def print_plan(out: Console, plan: Plan) -> None:
    out.print(f"[bold]Chaos[/] seed {plan.seed}, {plan.minutes:g} min, {plan.rate:g} orders/s; stock {plan.stock}")
    entries = [(blow.at, f"[red]{escape(blow.says)}[/]") for blow in plan.blows]
    for wish in plan.wishes:
        more = [f"{wish.card}, then {wish.then}" if wish.card != "visa" else "visa"]
        more += [f"cancelled after {wish.cancel_after:g} s"] if wish.cancel_after is not None else []
        more += ["cancelled when sold"] if wish.cancel_sold else []
        more += ["sent twice"] if wish.twice else []
        entries.append((wish.at, f"order {wish.number}: {', '.join(more)}"))
    for at, words in sorted(entries):
        out.print(f"{at:8.2f} s  {words}")


def print_run(out: Console, run: Run) -> None:
    """One screen."""
    plan, verdict = run.plan, run.verdict
    out.print(f"[bold]Chaos[/] seed {plan.seed}, {plan.minutes:g} min, {plan.rate:g} orders/s")
    blows = Table(box=None, pad_edge=False, header_style="bold")
    for column, side in (("what went wrong", "left"), ("times", "right"), ("missed", "right"), ("in flight", "right")):
        blows.add_column(column, justify=side)  # type: ignore[arg-type]
    for name, struck in sorted(_by_kind(run.struck).items()):
        flights = [one.in_flight for one in struck]
        missed = sum(bool(one.missed) for one in struck)
        blows.add_row(name, str(len(struck)), str(missed or ""), f"{min(flights)} to {max(flights)}")
    out.print(blows)
    out.print(f"restarts: {_listed(run.restarts)}")
    out.print(f"orders:   {_listed(verdict.endings)}")
    out.print(f"clients:  {_clients(run)}")
    out.print(f"seconds:  {_latencies(run)}")
    gaps = sum(len(one.gaps) for one in run.listeners)
    heard = sum(one.last for one in run.listeners)
    reconnects = sum(one.reconnects for one in run.listeners)
    out.print(f"streams:  {heard} events, {reconnects} reconnects, {gaps} gaps")
    _print_first(out, "breach", verdict.breaches)
    _print_first(out, "open break", verdict.breaks)
    print_stuck(out, verdict.stuck)
    if verdict.holds:
        out.print(f"[green]Everything holds[/], {verdict.healed_seconds or 0:.1f} s after the last order and fault.")
        return
    out.print(f"Kept: {run.directory} (servers.log is there). To look into it:", soft_wrap=True)
    out.print(f"  MERCATO_DATA_DIR={run.directory} mercato up, and then mercato check", soft_wrap=True)


def _print_first(out: Console, name: str, found: Sequence[str]) -> None:
    for one in found[:MOST_SHOWN]:
        out.print(f"[red]{name}[/] {escape(one)}")
    if len(found) > MOST_SHOWN:
        out.print(f"[red]{name}[/] and {len(found) - MOST_SHOWN} more; see --json")


def as_json(run: Run) -> dict[str, Any]:
    return {
        "seed": run.plan.seed,
        "minutes": run.plan.minutes,
        "rate": run.plan.rate,
        "holds": run.verdict.holds,
        "directory": None if run.verdict.holds else str(run.directory),
        "verdict": asdict(run.verdict),
        "restarts": run.restarts,
        "clients": asdict(run.tally),
        "wishes": len(run.stories),
        "unknown": sum(story.unknown for story in run.stories),
        "placedSeconds": _percentiles([one.placed_seconds for one in run.stories]),
        "settledSeconds": _percentiles([one.settled_seconds for one in run.stories]),
        "streams": [{"heard": one.last, "reconnects": one.reconnects, "gaps": one.gaps} for one in run.listeners],
        "blows": [
            {"at": round(one.at, 2), "what": one.blow.says, "inFlight": one.in_flight, "missed": one.missed}
            for one in run.struck
        ],
    }


def _by_kind(struck: Sequence[Struck]) -> dict[str, list[Struck]]:
    found: dict[str, list[Struck]] = {}
    for one in struck:
        given = one.blow.given
        name = {
            "step": f"fault in the {one.blow.target}: {given.get('kind')}",
            "processor": f"processor: {given.get('mode')}",
        }
        found.setdefault(name.get(one.blow.kind, f"{one.blow.kind} {one.blow.target}"), []).append(one)
    return found


def _clients(run: Run) -> str:
    answers = Counter(run.tally.answers)
    unknown = sum(story.unknown for story in run.stories)
    bad = {answer: count for answer, count in answers.items() if not answer.startswith(("2", "4"))}
    words = f"{len(run.stories)} wishes, {sum(answers.values())} answers, {run.tally.repeats} repeats"
    return f"{words} ({_listed(bad)}), {unknown} gave up"


def _latencies(run: Run) -> str:
    placed = _percentiles([one.placed_seconds for one in run.stories])
    settled = _percentiles([one.settled_seconds for one in run.stories])
    words = [f"{name} {_spread(found)}" for name, found in (("answered", placed), ("settled", settled))]
    return f"{'; '.join(words)}; longest outage healed {run.tally.longest_outage:.1f}"


def _percentiles(given: Sequence[float | None]) -> dict[str, float]:
    values = sorted(value for value in given if value is not None)
    if not values:
        return {}
    return {f"p{share}": round(values[min(len(values) - 1, len(values) * share // 100)], 2) for share in (50, 95, 100)}


def _spread(found: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('p100', 'most')} {value:g}" for name, value in found.items()) or "never"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count) or "none"
