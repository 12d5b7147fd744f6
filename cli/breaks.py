"""`mercato breaks`: what reconciliation has found wrong; resolve one; have everything compared now."""

import asyncio
import json
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.markup import escape
from rich.table import Table
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from cli.api_client import ApiClient, ApiFailure
from cli.console import console, fail
from cli.order_lists import DEMO_PASSWORD, DEMO_STAFF, Email, Password, Url
from cli.running import present_settings
from core.settings import Settings
from core.temporal import TemporalConnector
from models.errors import Unavailable
from models.messages import ReconcileResult

COLOURS = {"open": "red", "repaired": "green", "resolved": "yellow"}

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def breaks() -> None:
    """What reconciliation has found wrong between orders, stock, money and the processor's books."""


@app.command("list")
def list_breaks(
    state: Annotated[str | None, typer.Option(help="open, repaired or resolved; not given: all.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, like extra_charge.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as the API answers them.")] = False,
    url: Url = None,
    staff_email: Email = DEMO_STAFF,
    staff_password: Password = DEMO_PASSWORD,
) -> None:
    """List breaks, newest first."""
    query = {name: value for name, value in (("state", state), ("kind", kind), ("limit", limit)) if value is not None}
    page = _call(url, (staff_email, staff_password), "GET", "/api/orders/breaks", params=query)
    if as_json:
        typer.echo(json.dumps(page, indent=2))
        return
    print_breaks(page["items"])


@app.command()
def resolve(
    break_id: Annotated[int, typer.Argument(metavar="ID")],
    reason: Annotated[str, typer.Option(help="Why it may stay so; audited.")],
    url: Url = None,
    staff_email: Email = DEMO_STAFF,
    staff_password: Password = DEMO_PASSWORD,
) -> None:
    """Take a break upon yourself: it may stay so, and is not found again."""
    path = f"/api/orders/breaks/{break_id}/resolve"
    print_breaks([_call(url, (staff_email, staff_password), "POST", path, json={"reason": reason})])


@app.command()
def sweep() -> None:
    """Compare everything now, not only what is new, and wait for the result. Exits with 1 if breaks are open."""
    try:
        result = asyncio.run(compare_everything(present_settings()))
    except (Unavailable, RPCError, WorkflowFailureError) as error:
        raise fail(f"Reconciliation could not be run: {error}") from error
    out = console()
    out.print(f"checkouts started   {result.started}")
    out.print(f"orders repaired     {result.repaired}")
    out.print(f"reservations freed  {result.reservations_released}")
    out.print(f"breaks open         [{'red' if result.breaks_open else 'green'}]{result.breaks_open}[/]")
    raise SystemExit(1 if result.breaks_open else 0)


async def compare_everything(settings: Settings) -> ReconcileResult:
    """A whole pass of reconciliation, by the worker that runs; what came of it.

    Raises:
        Unavailable, RPCError: Temporal cannot be reached.
        WorkflowFailureError: the pass did not come to its end.
    """
    from workers.main import reconcile_input
    from workflows import options
    from workflows.reconciliation import ReconciliationWorkflow

    client = await TemporalConnector(settings).client()
    return await client.execute_workflow(
        ReconciliationWorkflow.run,
        reconcile_input(settings, everything=True),
        id=f"reconciliation-sweep-{uuid4().hex[:8]}",
        task_queue=options.TASK_QUEUE,
        execution_timeout=2 * options.BOOKS_TIMEOUT,
    )


def print_breaks(found: list[dict[str, Any]]) -> None:
    """A row a break, and its sentence below the table where it would not fit."""
    out = console()
    if not found:
        out.print("No breaks.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "state", "kind", "since", "seen", "what"):
        table.add_column(column, overflow="fold")
    for one in found:
        by = f" ({one['closedBy']}: {one['reason']})" if one["state"] != "open" else ""
        table.add_row(
            str(one["id"]),
            f"[{COLOURS[one['state']]}]{one['state']}[/]",
            one["kind"],
            one["firstSeenAt"][:19].replace("T", " "),
            f"{one['timesSeen']}x",
            escape(f"{one['subject']}: {one['says']}{by}"),
        )
    out.print(table)


def _call(url: str | None, staff: tuple[str, str], method: str, path: str, **request: Any) -> Any:
    settings = present_settings()

    async def call() -> Any:
        async with ApiClient(url or settings.public_url) as api:
            await api.login(*staff)
            return await api.get_json(method, path, **request)

    try:
        return asyncio.run(call())
    except ApiFailure as error:
        raise fail(str(error)) from error
