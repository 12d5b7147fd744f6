"""`mercato orders`: what support staff ask for first. The list is in cli/order_lists.py, one order here."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from cli.api_client import ApiClient, ApiFailure, StreamEvent
from cli.breaks import print_breaks
from cli.console import console, fail, money
from cli.order_lists import (
    DEMO_PASSWORD,
    DEMO_STAFF,
    Email,
    Password,
    Url,
    attention_text,
    list_orders,
    status_text,
)
from cli.running import present_settings
from core.settings import Settings
from core.temporal import TemporalConnector
from models.errors import Unavailable
from models.types import normalize_order_number
from workflows.options import runs_of

SILENCE = 1.0  # seconds without an event: the log of an open order is told, its stream goes on

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def orders() -> None:
    """List orders, or show one with its events."""


app.command("list")(list_orders)


@app.command()
def show(
    order: Annotated[str, typer.Argument(metavar="ORDER_ID_OR_NUMBER")],
    url: Url = None,
    staff_email: Email = DEMO_STAFF,
    staff_password: Password = DEMO_PASSWORD,
) -> None:
    """Show one order: lines, payment, events, and where its workflow stands."""
    settings = present_settings()
    try:
        asyncio.run(_show(settings, url or settings.public_url, (staff_email, staff_password), order))
    except ApiFailure as error:
        raise fail(str(error)) from error


async def _show(settings: Settings, url: str, staff: tuple[str, str], wanted: str) -> None:
    out = console()
    async with ApiClient(url) as api:
        await api.login(*staff)
        order = await _find(api, wanted)
        payment = await api.call("GET", f"/api/payments/{order['id']}")
        events = await events_of(api, order["id"])
        found = await api.get_json("GET", "/api/orders/breaks", params={"order": order["id"]})
    _print_order(out, order)
    if payment.status_code == 200:
        print_payment(out, payment.json())
    _print_events(out, events)
    if found["items"]:
        out.print("[bold]Breaks[/]")
        print_breaks(found["items"])
    await _print_workflows(out, settings, order["id"])


async def _find(api: ApiClient, wanted: str) -> dict[str, Any]:
    try:
        order_id = UUID(wanted)
    except ValueError:
        return await _find_by_number(api, wanted)
    response = await api.call("GET", f"/api/orders/{order_id}")
    if response.status_code == 404:
        raise ApiFailure(f"There is no order {wanted}.")
    response.raise_for_status()
    order: dict[str, Any] = response.json()
    return order


async def _find_by_number(api: ApiClient, wanted: str) -> dict[str, Any]:
    number = normalize_order_number(wanted)
    if number is None:
        raise ApiFailure(f"{wanted} is no order's id, and no order's number begins so.")
    found: list[dict[str, Any]] = (await api.get_json("GET", "/api/orders", params={"number": number}))["items"]
    if not found:
        raise ApiFailure(f"There is no order {number}.")
    if len(found) > 1:
        raise ApiFailure(f"Several orders begin so: {', '.join(order['number'] for order in found)}.")
    return found[0]


async def events_of(api: ApiClient, order_id: str) -> list[StreamEvent]:
    """The order's log so far."""
    async with api.events(f"/api/orders/{order_id}/events", last_event_id=0, silence=SILENCE) as events:
        return [event async for event in events if event.seq is not None]


# --- printing ------------------------------------------------------------------------------------------------------


def _print_order(out: Console, order: dict[str, Any]) -> None:
    out.print(f"[bold]Order {order['number']}[/]  {status_text(order['status'])}, payment {order['paymentStatus']}")
    facts = {
        "id": order["id"],
        "customer": order["customerId"],
        "placed": f"{_time(order['createdAt'])} UTC",
        "changed": f"{_time(order['updatedAt'])} UTC",
        "reason": order["reason"],
        "trace": order["traceId"],
        "waits for": _action(order["actionRequired"]),
        "attention": attention_text(order) if order["attention"] else None,
    }
    for name, value in facts.items():
        if value:
            colour = "red" if name == "attention" else "yellow" if name == "waits for" else "default"
            out.print(f"  {name:<10} [{colour}]{escape(str(value))}[/]")
    table = Table(box=None, header_style="bold")
    for column, justify in (("product", "left"), ("sku", "left"), ("", "right"), ("each", "right"), ("total", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for line in order["lines"]:
        cells = (money(line["unitPrice"]), money(line["lineTotal"]))
        table.add_row(escape(line["name"]), escape(line["sku"]), f"{line['quantity']} x", *cells)
    table.add_row("[bold]total[/]", "", "", "", f"[bold]{money(order['total'])}[/]")
    out.print(table)


def print_payment(out: Console, payment: dict[str, Any]) -> None:
    """A payment with its attempts and its ledger."""
    out.print(
        f"[bold]Payment[/] {payment['status']}, {money(payment['amount'])}, intent {payment['intentId'] or 'none'}"
    )
    for attempt in payment["attempts"]:
        declined = f" ({escape(attempt['declineCode'])})" if attempt["declineCode"] else ""
        out.print(f"  card {attempt['attempt']}: {attempt['state']}{declined}")
    table = Table(box=None, header_style="bold")
    table.add_column("ledger")
    table.add_column("account")
    table.add_column("debit", justify="right")
    table.add_column("credit", justify="right")
    for transaction in payment["ledger"]:
        for position, entry in enumerate(transaction["entries"]):
            amount = money({"amount": abs(entry["amount"]), "currency": entry["currency"]})
            sides = (amount, "") if entry["amount"] > 0 else ("", amount)
            table.add_row("" if position else transaction["kind"], entry["account"], *sides)
    if payment["ledger"]:
        out.print(table)


def _print_events(out: Console, events: list[StreamEvent]) -> None:
    out.print("[bold]Events[/]")
    for event in events:
        told = event.data.get("declineCode") or event.data.get("detail") or event.data.get("step") or ""
        at = event.data["at"][11:23]
        out.print(f"  {event.seq:>4}  {at}  {event.type:<24} {escape(str(told))}".rstrip())


async def _print_workflows(out: Console, settings: Settings, order_id: str) -> None:
    try:
        client = await TemporalConnector(settings).client()
        for workflow_id in runs_of(order_id):
            try:
                description = await client.get_workflow_handle(workflow_id).describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    continue
                raise
            _print_workflow(out, description)
            out.print(f"  {workflow_link(settings, workflow_id)}", soft_wrap=True)
    except (Unavailable, RPCError) as error:
        out.print(f"[yellow]Its workflow is not shown: {escape(str(error))}[/]")


def _print_workflow(out: Console, description: WorkflowExecutionDescription) -> None:
    status = description.status.name.lower() if description.status else "unknown"
    out.print(f"[bold]Workflow[/] {description.id}: {status}, {description.history_length} events")
    for pending in description.raw_description.pending_activities:
        state = PendingActivityState.Name(pending.state).removeprefix("PENDING_ACTIVITY_STATE_").lower()
        failure = f": {pending.last_failure.message}" if pending.last_failure.message else ""
        out.print(f"  {pending.activity_type.name} {state}, attempt {pending.attempt}{escape(failure)}")


def workflow_link(settings: Settings, workflow_id: str) -> str:
    """The workflow's page in the Temporal UI."""
    ui = settings.temporal_ui_url.rstrip("/")
    return f"{ui}/namespaces/{settings.temporal_namespace}/workflows/{workflow_id}"


def _action(action: dict[str, Any] | None) -> str | None:
    if action is None:
        return None
    until = f" until {_time(action['deadline'])} UTC" if action["deadline"] else ""
    return f"another card{until} ({action['reason']})" if action["type"] == "payment_method" else action["type"] + until


def _time(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
