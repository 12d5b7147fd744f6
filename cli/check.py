"""`mercato check`: reads every schema, the processor's books and Temporal, and verifies the invariants."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import typer
from rich.markup import escape
from rich.table import Table
from temporalio.client import Client, WorkflowExecution
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError

from cli.console import console
from cli.invariants import INVARIANTS, Invariant, Source, preparation
from cli.running import present_settings
from core.settings import Settings
from core.temporal import NEEDS_ATTENTION, TemporalConnector
from models.errors import Unavailable

BOOKS_PAGE = 5000
MOST_SHOWN = 10  # breaches of one invariant, in the table
LOOKS = 4
BETWEEN_LOOKS = 1.0  # seconds
OPEN_SECONDS = 600  # beyond the reservation's life, before an open workflow is one too long
REPORTED_PROBLEMS = SearchAttributeKey.for_keyword_list("TemporalReportedProblems")  # the server's own
WORKFLOWS_OF_ORDERS = "WorkflowType = 'CheckoutWorkflow' AND ExecutionStatus = 'Running'"


@dataclass(frozen=True)
class Breach:
    """`subject` is an order's id, or a product or customer by name."""

    invariant: str
    subject: str
    detail: str


@dataclass
class Result:
    """What came of one invariant; `unread`: a source it needs could not be read, so nothing is known."""

    invariant: Invariant
    looked_at: int = 0
    breaches: list[Breach] = field(default_factory=list)
    unread: list[Source] = field(default_factory=list)


@dataclass
class Report:
    results: list[Result]
    unreadable: dict[Source, str]  # why
    accepted: list[str] = field(default_factory=list)  # orders whose money a person has taken upon themselves

    @property
    def breaches(self) -> list[Breach]:
        return [breach for result in self.results for breach in result.breaches]

    @property
    def exit_code(self) -> int:
        """1: something is broken. 2: something could not be read. 0: everything was read, and holds."""
        return 1 if self.breaches else 2 if self.unreadable else 0


def check(
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Verify the platform's invariants across all services, the processor's books and Temporal.

    Exits with 1 when one is broken, with 2 when something cannot be read.
    """
    report = asyncio.run(check_invariants(present_settings()))
    if as_json:
        typer.echo(json.dumps(_as_json(report), indent=2))
    else:
        _print(report)
    raise SystemExit(report.exit_code)


async def check_invariants(settings: Settings) -> Report:
    """Look, and look again at what seems broken.

    The stores are not read in one moment: a workflow may close and a payment be taken between two reads. What is broken
    stays broken; only that is reported.
    """
    report = await _look(settings)
    for _ in range(LOOKS - 1):
        if not any(_may_be_a_race(result) for result in report.results):
            break
        await asyncio.sleep(BETWEEN_LOOKS)
        report = _in_both(report, await _look(settings))
    return report


def _may_be_a_race(result: Result) -> bool:
    return bool(result.breaches) and len(result.invariant.needs) > 1


def _in_both(before: Report, now: Report) -> Report:
    """`now`, without what was not broken before; what one snapshot shows broken needs no second witness."""
    known = {(breach.invariant, breach.subject) for breach in before.breaches}
    for result in now.results:
        if len(result.invariant.needs) > 1:
            result.breaches = [breach for breach in result.breaches if (breach.invariant, breach.subject) in known]
    return now


async def _look(settings: Settings) -> Report:
    """One look at everything: the databases' snapshot first, then what it is held against."""
    unreadable: dict[Source, str] = {}
    try:
        connection = await asyncpg.connect(settings.database_url, timeout=10) if settings.database_url else None
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _nothing_read(f"The database cannot be reached: {error}")
    if connection is None:
        return _nothing_read("Mercato is not running here, and MERCATO_DATABASE_URL is not set.")
    try:
        await connection.execute(preparation(in_flight_seconds(settings), open_seconds(settings)))
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM orders.orders")  # from here on, nothing moves
            await _lay_beside(connection, settings, unreadable)
            results = [await _verify(connection, invariant, unreadable) for invariant in INVARIANTS]
            rows = await connection.fetch("SELECT order_id, actor, reason FROM accepted ORDER BY order_id")
            accepted = [f"{row['order_id']} accepted by {row['actor']}: {row['reason']}" for row in rows]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _nothing_read(f"The database cannot be read: {error}")
    finally:
        await connection.close()
    return Report(results, unreadable, accepted)


def in_flight_seconds(settings: Settings) -> float:
    """How long an open order may be without a workflow: reconciliation comes by at least once in this time."""
    return settings.reconcile_after_seconds + 2 * settings.reconcile_every_seconds


def open_seconds(settings: Settings) -> float:
    """How long a workflow may be open without a word: the life of a reservation, a round of retries, and some more."""
    return settings.reservation_ttl_seconds + settings.round_seconds + OPEN_SECONDS


async def _lay_beside(connection: asyncpg.Connection, settings: Settings, unreadable: dict[Source, str]) -> None:
    """The books and the open workflows, as temporary tables."""
    try:
        async for page in _books(settings):
            await connection.copy_records_to_table("book", records=page)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        unreadable["processor"] = f"The processor's books cannot be read: {error or type(error).__name__}"
    connector = TemporalConnector(settings)
    try:
        runs = await _open_runs(await connector.client())
        await connection.copy_records_to_table("run", records=runs)
    except (Unavailable, RPCError) as error:
        unreadable["temporal"] = f"Temporal cannot be read: {error}"


async def _verify(connection: asyncpg.Connection, invariant: Invariant, unreadable: dict[Source, str]) -> Result:
    result = Result(invariant, unread=sorted(invariant.needs & unreadable.keys()))
    if not result.unread:
        result.looked_at = await connection.fetchval(invariant.counts)
        rows = await connection.fetch(invariant.breaches)
        result.breaches = [Breach(invariant.name, row[0], row[1]) for row in rows]
    return result


def _nothing_read(why: str) -> Report:
    return Report([Result(invariant, unread=["database"]) for invariant in INVARIANTS], {"database": why})


# --- what PostgreSQL does not hold ---------------------------------------------------------------------------------


async def _books(settings: Settings) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Pages of the processor's books of our account, as rows of the table `book`."""
    address = settings.processor_url or f"http://{settings.host}:{settings.processor_port}"
    headers = {"Authorization": f"Bearer {settings.processor_api_key.get_secret_value()}"}
    query: dict[str, Any] = {"limit": BOOKS_PAGE}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30) as http:
        while True:
            answer = (await http.get("/test/books", params=query)).raise_for_status().json()
            yield [_book(intent) for intent in answer["data"]]
            if not answer["has_more"]:
                return
            query["starting_after"] = answer["data"][-1]["id"]


def _book(intent: dict[str, Any]) -> tuple[Any, ...]:
    return (
        intent["id"],
        _uuid((intent["metadata"] or {}).get("order_id", "")),
        intent["currency"],
        intent["amount_authorized_open"],
        intent["captured"],
        intent["refunded"],
        intent["charges"],
    )


async def _open_runs(client: Client) -> list[tuple[str, UUID, datetime, bool, str]]:
    """Rows of the table `run`. A workflow that does not belong to an order is none of its business."""
    runs = []
    async for run in client.list_workflows(WORKFLOWS_OF_ORDERS):
        order_id = _uuid(run.id.partition("-")[2])
        if order_id is not None:
            attention = run.typed_search_attributes.get(NEEDS_ATTENTION, False)
            runs.append((run.id, order_id, run.start_time, attention, _problem(run)))
    return runs


def _problem(run: WorkflowExecution) -> str:
    """Why the server says that the workflow's code fails; a worker that died is none of its faults."""
    problems = run.typed_search_attributes.get(REPORTED_PROBLEMS, ())
    causes = [problem.removeprefix("cause=WorkflowTaskFailedCause") for problem in problems if "cause=" in problem]
    return ", ".join(causes) if "category=WorkflowTaskFailed" in problems else ""


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# --- what people and programs read ---------------------------------------------------------------------------------


def _print(report: Report) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", width=3)
    table.add_column("invariant")
    table.add_column("looked at", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for result in report.results:
        looked_at = "" if result.unread else f"{result.looked_at:,} {result.invariant.of}"
        table.add_row(result.invariant.name, result.invariant.says, looked_at, _verdict(result))
    out = console()
    out.print(table)
    for result in report.results:
        for breach in result.breaches[:MOST_SHOWN]:
            out.print(f"[red]{breach.invariant}[/] [bold]{escape(breach.subject)}[/] {escape(breach.detail)}")
        if len(result.breaches) > MOST_SHOWN:
            out.print(f"[red]{result.invariant.name}[/] and {len(result.breaches) - MOST_SHOWN} more; see --json")
    for one in report.accepted[:MOST_SHOWN]:
        out.print(f"[yellow]I3, I5[/] {escape(one)}")
    for why in report.unreadable.values():
        out.print(f"[yellow]{escape(why)}[/]")
    if report.exit_code == 0:
        out.print("[green]Everything holds.[/]")


def _verdict(result: Result) -> str:
    if result.unread:
        return f"[yellow]not checked ({', '.join(result.unread)})[/]"
    return f"[red]{len(result.breaches)} broken[/]" if result.breaches else "[green]holds[/]"


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "holds": report.exit_code == 0,
        "unreadable": report.unreadable,
        "accepted": report.accepted,
        "invariants": [
            {
                "name": result.invariant.name,
                "says": result.invariant.says,
                "lookedAt": result.looked_at,
                "unit": result.invariant.of,
                "checked": not result.unread,
                "breaches": [asdict(breach) for breach in result.breaches],
            }
            for result in report.results
        ],
    }
