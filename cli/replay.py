"""`mercato replay`: do the histories of real runs still fit the code at hand?"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError

from cli import histories
from cli.console import console, fail
from cli.histories import Case, UnreadableHistory
from cli.replaying import Replayed, ReplayRun
from cli.running import present_settings
from cli.times import duration
from core import temporal
from models.errors import Unavailable
from workers.main import WORKFLOWS

MOST_LISTED = 20  # of those that replay
WORDS = {
    "replays": "[green]replays[/]",
    "differs": "[red]differs[/]",
    "fails": "[red]fails[/]",
    "stuck": "[red]is stuck[/]",
    "unreadable": "[red]cannot be read[/]",
}


@dataclass(frozen=True)
class Wanted:
    """What to replay, as asked for."""

    target: str | None
    files: list[Path]
    directories: list[Path]
    query: str | None
    since: timedelta | None
    limit: int | None


def replay(
    target: Annotated[str | None, typer.Argument(metavar="ORDER_ID", help="An order's id, or a workflow's.")] = None,
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="A history as JSON; may be repeated.")] = None,
    directory: Annotated[list[Path] | None, typer.Option("--dir", help="Every *.json below it.")] = None,
    query: Annotated[str | None, typer.Option(help="A list filter, e.g. \"OrderStatus = 'expired'\".")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run that began within --since.")] = False,
    since: Annotated[str, typer.Option(help="For --all: 90s, 30m, 24h, 7d.")] = "24h",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest first.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each history there, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Replay workflow histories against the code at hand. No activity runs, nothing is changed.

    Exits with 1 when a history differs, fails, cannot be read, does not replay within 30 s, or when there is none.
    """
    wanted = Wanted(
        target, file or [], directory or [], query, duration(since, "--since") if everything else None, limit
    )
    if not (target or file or directory or query or everything):
        raise typer.BadParameter("what shall be replayed? ORDER_ID, --file, --dir, --query or --all")
    # No asyncio.run: it would wait for the thread of a workflow that is stuck. The process ends by os._exit.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    results = loop.run_until_complete(_replay(wanted, save, quiet=as_json))
    if as_json:
        typer.echo(json.dumps(_as_json(results), indent=2))
    else:
        _print(results, save)
    raise SystemExit(0 if results and all(result.outcome == "replays" for result in results) else 1)


async def _replay(wanted: Wanted, save: Path | None, *, quiet: bool) -> list[Replayed]:
    try:
        cases = await _cases(wanted)
    except UnreadableHistory as error:
        raise fail(str(error)) from error
    with _progress(len(cases), quiet=quiet) as advance:

        def tell(_: Replayed, history: WorkflowHistory | None) -> None:
            advance()
            if save and history:
                _save(history, save)

        return await ReplayRun(WORKFLOWS).replay(cases, tell)


async def _cases(wanted: Wanted) -> list[Case]:
    cases = histories.files(wanted.files, wanted.directories)
    if wanted.target or wanted.query or wanted.since:
        client = await _client()
        try:
            if wanted.target:
                cases += await histories.of_target(client, wanted.target)
            if wanted.query:
                cases += await histories.of_query(client, wanted.query, wanted.limit)
            if wanted.since:
                since = (datetime.now(UTC) - wanted.since).strftime("%Y-%m-%dT%H:%M:%SZ")
                cases += await histories.of_query(client, f"StartTime >= '{since}'", wanted.limit)
        except RPCError as error:
            raise fail(f"Temporal refuses: {error}") from error
    unique = list({case.name: case for case in cases}.values())
    return unique[: wanted.limit] if wanted.limit else unique


async def _client() -> Client:
    try:
        return await temporal.TemporalConnector(present_settings()).client()
    except Unavailable as error:
        raise fail(f"{error}. Is Mercato running? `mercato up` starts it.") from error


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr, where that is a terminal."""
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    out = console(stderr=True)
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as bar:
        task = bar.add_task("replaying", total=total)
        yield lambda: bar.advance(task)


def _save(history: WorkflowHistory, directory: Path) -> None:
    try:
        histories.write(history, directory)
    except OSError as error:
        raise fail(f"{directory}: {error.strerror or error}") from error


def _print(results: list[Replayed], directory: Path | None) -> None:
    out = console()
    for result in results:
        if result.outcome != "replays" or len(results) <= MOST_LISTED:
            _print_one(out, result)
    counted = Counter(result.outcome for result in results)
    words = ", ".join(f"{number} {WORDS[outcome]}" for outcome, number in counted.most_common())
    noun = "history" if len(results) == 1 else "histories"
    out.print(f"[bold]{len(results)} {noun}:[/] {words}" if results else "[red]No history was found.[/]")
    if directory:
        out.print(f"Saved in {directory}: {len(results) - counted['unreadable']}", soft_wrap=True)


def _print_one(out: Console, result: Replayed) -> None:
    events = f" ({result.events} events)" if result.events else ""
    out.print(f"{WORDS[result.outcome]} {escape(result.name)}{events}", soft_wrap=True)
    if not result.problem:
        return
    if result.workflow_id and result.workflow_id not in result.name:
        out.print(f"  {escape(result.workflow_id)} (run {result.run_id or 'unknown'})", soft_wrap=True)
    place = f"workflow task completed at event {result.event_id}: " if result.event_id else ""
    out.print(f"  {place}{escape(result.problem)}", soft_wrap=True)


def _as_json(results: list[Replayed]) -> dict[str, Any]:
    return {
        "replays": bool(results) and all(result.outcome == "replays" for result in results),
        "histories": [
            {
                "name": result.name,
                "workflowId": result.workflow_id or None,
                "runId": result.run_id or None,
                "events": result.events,
                "outcome": result.outcome,
                "eventId": result.event_id,
                "problem": result.problem,
            }
            for result in results
        ],
    }
