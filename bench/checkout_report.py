"""What `make bench-checkout` says at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from temporalio.client import WorkflowHistory

from bench import report
from bench.contestants import Contestant, Load
from bench.machine import versions
from bench.report import Bar, Summary, percentile

ENGINE_BAR = 0.6  # of the design: confirmed orders/s through HTTP ÷ bare workflows/s
DBOS_BAR = 1.0  # confirmed orders/s ÷ those of the same steps on DBOS
COMPONENTS = ("temporal", "worker", "api", "postgres", "processor", "valkey", "bare", "dbos", "ceiling", "client")


@dataclass(frozen=True)
class History:
    """What the engine keeps of one order."""

    events: int
    steps: int  # local ones

    @classmethod
    def of(cls, history: WorkflowHistory) -> Self:
        markers = [event for event in history.events if event.HasField("marker_recorded_event_attributes")]
        return cls(len(history.events), len(markers))


def conclude(
    load: Load, field: Sequence[Contestant], history: History, oversold: int, json: Path, plot: Path | None
) -> bool:
    """Print the tables, write JSON and plot; whether the bars were met."""
    report.console.print()
    _speeds(field, load)
    _costs(field)
    by_name = {one.name: one for one in field}
    wanted = _bars(by_name)
    report.console.print(", ".join(f"{package} {version}" for package, version in versions().items()))
    report.console.print(f"history of an order: {history.events} events, {history.steps} of them local steps")
    report.console.print(f"oversold units: {oversold}")
    failures = [failure for one in field for failure in one.failures]
    for failure in failures[:5]:
        report.console.print(f"[red]failed:[/] {failure}")
    met = report.bars(wanted) and not oversold and not failures
    contestants = {one.name: _figures(one) for one in field}
    figures = {
        "load": asdict(load),
        "history": asdict(history),
        "oversold": oversold,
        "failures": len(failures),
        "bars": [asdict(bar) | {"met": bar.met} for bar in wanted],
        "contestants": contestants,
    }
    report.write_json(json, figures)
    if plot:
        draw(contestants, plot)
    return met


def _bars(field: dict[str, Contestant]) -> list[Bar]:
    bars = []
    if {"mercato", "bare engine"} <= field.keys():
        bars.append(
            Bar("orders/s ÷ bare workflows/s", _ratio(field["mercato"], field["bare engine"]).median, ENGINE_BAR)
        )
    if {"mercato", "dbos"} <= field.keys():
        bars.append(Bar("orders/s ÷ the same steps on DBOS", _ratio(field["mercato"], field["dbos"]).median, DBOS_BAR))
    return bars


def _ratio(one: Contestant, other: Contestant) -> Summary:
    """Round by round, so that a slow minute of the machine counts on both sides."""
    return Summary.of([a.rate / b.rate for a, b in zip(one.rounds, other.rounds, strict=True)])


def _speeds(field: Sequence[Contestant], load: Load) -> None:
    rows = []
    for one in field:
        quick = sorted(one.latencies)
        times = [f"{1000 * percentile(quick, share):,.0f}" for share in (0.5, 0.95, 0.99)]
        ratio = str(_ratio(field[0], one)) if one is not field[0] else ""
        rows.append((one.name, str(one.orders), str(one.rate), *times, ratio))
    title = f"{load.rounds} rounds of {load.orders} orders, {load.at_once} at once: median (least to most)"
    columns = ("", "orders", "orders/s", "p50 ms", "p95 ms", "p99 ms", f"{field[0].name} ÷ it")
    report.table(title, columns, rows)


def _costs(field: Sequence[Contestant]) -> None:
    names = [name for name in COMPONENTS if any(_milliseconds(one, name) >= 0.05 for one in field)]
    rows = [(name, *(f"{_milliseconds(one, name):,.1f}" if name in one.cpu else "" for one in field)) for name in names]
    total = [sum(_milliseconds(one, name) for name in COMPONENTS) for one in field]
    rows.append(("together", *(f"{milliseconds:,.1f}" for milliseconds in total)))
    report.table("CPU milliseconds an order", ("component", *(one.name for one in field)), rows)
    roles = sorted({role for one in field for role in one.statements})
    rows = [(role, *(f"{one.statements.get(role, 0) / one.orders:,.1f}" for one in field)) for role in roles]
    all_of = [sum(one.statements.values()) / one.orders for one in field]
    rows.append(("together", *(f"{statements:,.1f}" for statements in all_of)))
    report.table("SQL statements an order, BEGIN and COMMIT included", ("role", *(one.name for one in field)), rows)


def _milliseconds(one: Contestant, component: str) -> float:
    return 1000 * one.cpu.get(component, 0) / one.orders


def _figures(one: Contestant) -> dict[str, Any]:
    return {
        "orders": one.orders,
        "ordersPerSecond": asdict(one.rate),
        "rounds": [one_round.rate for one_round in one.rounds],
        "milliseconds": {f"p{share}": 1000 * percentile(one.latencies, share / 100) for share in (50, 95, 99)},
        "cpuMillisecondsPerOrder": {name: _milliseconds(one, name) for name in one.cpu},
        "statementsPerOrder": {role: calls / one.orders for role, calls in one.statements.items()},
    }


def draw(contestants: Mapping[str, Any], path: Path) -> None:
    """CPU milliseconds an order, stacked by component; `contestants` as in the JSON."""
    from matplotlib import pyplot

    used = {name: one["cpuMillisecondsPerOrder"] for name, one in contestants.items()}
    figure, axes = pyplot.subplots(figsize=(8, 3), layout="constrained")
    left = [0.0] * len(used)
    for component in COMPONENTS:
        widths = [milliseconds.get(component, 0) for milliseconds in used.values()]
        if max(widths) >= 0.5:
            axes.barh(list(used), widths, left=left, label=component)
            left = [sum(pair) for pair in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds an order")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    report.console.print(f"drawn in {path}")
