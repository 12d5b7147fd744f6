"""`mercato orders list`: staff's search, a page after the other."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.api_client import ApiClient, ApiFailure
from cli.console import console, fail, money
from cli.running import present_settings
from cli.times import instant
from models.types import OrderStatus, PaymentStatus

STATUS_COLOURS = {"confirmed": "green", "action_required": "yellow", "pending": "yellow"}
PAGE = 100
MOST = 10_000

Url = Annotated[str | None, typer.Option(help="Where the API is; the running platform's if not given.")]
Email = Annotated[str, typer.Option(envvar="MERCATO_STAFF_EMAIL", help="Who asks; must be staff.")]
Password = Annotated[str, typer.Option(envvar="MERCATO_STAFF_PASSWORD", help="Their password.", show_default=False)]
DEMO_STAFF = "support@mercato.test"
DEMO_PASSWORD = "mercato-demo-pass"

Page = dict[str, Any]  # the API's: items, nextCursor
Filters = dict[str, str | list[str]]


def list_orders(
    status: Annotated[list[OrderStatus] | None, typer.Option(help="Only in this state; may be repeated.")] = None,
    payment_status: Annotated[
        list[PaymentStatus] | None, typer.Option(help="Only with a payment in this state; may be repeated.")
    ] = None,
    needs_attention: Annotated[bool, typer.Option("--needs-attention", help="Only orders that stand still.")] = False,
    customer: Annotated[
        str | None, typer.Option(metavar="ID_OR_EMAIL", help="Only this customer's: an id, or an e-mail address.")
    ] = None,
    number: Annotated[
        str | None, typer.Option(help="As people read it out, like T9Q0N-V2WDC, or how it begins (from 4 characters).")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Placed then or later: 30m, 24h, 7d ago, or a time in ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Placed before then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="At most so many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where a list has ended.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the orders as JSON, as the API answers them.")] = False,
    url: Url = None,
    staff_email: Email = DEMO_STAFF,
    staff_password: Password = DEMO_PASSWORD,
) -> None:
    """List orders, newest first. An order has to fit every option given."""
    query: dict[str, str | list[str] | None] = {
        "status": [one.value for one in status or ()],
        "paymentStatus": [one.value for one in payment_status or ()],
        "needsAttention": "true" if needs_attention else None,
        "customer": customer,
        "number": number,
        "placedAfter": instant(since, "--since").isoformat() if since else None,
        "placedBefore": instant(until, "--until").isoformat() if until else None,
    }
    filters = {name: value for name, value in query.items() if value}
    settings = present_settings()
    try:
        found = asyncio.run(_search(url or settings.public_url, (staff_email, staff_password), filters, limit, cursor))
    except ApiFailure as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_list(console(), found["items"])
        _print_how_to_go_on(console(), found, limit)


async def _search(url: str, staff: tuple[str, str], filters: Filters, limit: int, cursor: str | None) -> Page:
    found: list[dict[str, Any]] = []
    async with ApiClient(url) as api:
        await api.login(*staff)
        while True:
            query = {**filters, "limit": str(min(limit - len(found), PAGE))} | ({"cursor": cursor} if cursor else {})
            page = await api.get_json("GET", "/api/orders", params=query)
            found += page["items"]
            cursor = page["nextCursor"]
            if not cursor or len(found) >= limit:
                return {"items": found, "nextCursor": cursor}


def print_list(out: Console, found: list[dict[str, Any]]) -> None:
    """A line an order, within 100 columns; under them, why those marked `!` stand still."""
    currency = " ".join({order["total"]["currency"] for order in found if order["total"]})
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("number", "id", "status", "payment"):
        table.add_column(column, no_wrap=True)
    table.add_column(f"total, {currency}" if currency else "total", justify="right", no_wrap=True)
    table.add_column("placed, UTC", no_wrap=True)
    now = datetime.now(UTC)
    for order in found:
        mark = " [red]![/]" if order["needsAttention"] else ""
        table.add_row(
            order["number"],
            order["id"],
            f"{status_text(order['status'])}{mark}",
            order["paymentStatus"],
            money(order["total"]).removesuffix(f" {currency}"),
            _placed_text(order["createdAt"], now),
        )
    if found:
        out.print(table)
    else:
        out.print("No order fits.")
    for order in found:
        if order["attention"]:
            out.print(f"[red]![/] {order['number']} {escape(attention_text(order))}")


def _print_how_to_go_on(out: Console, found: Page, limit: int) -> None:
    if found["nextCursor"]:
        more = f"--limit {min(10 * limit, MOST)} for more at once, or " if limit < MOST else ""
        out.print(f"There are more, older ones: {more}go on with", style="dim")
        out.print(f"  --cursor {found['nextCursor']}", style="dim", soft_wrap=True)


def status_text(status: str) -> str:
    """In the colour that says how it stands."""
    return f"[{STATUS_COLOURS.get(status, 'red')}]{status}[/]"


def attention_text(order: dict[str, Any]) -> str:
    """What stands still, and why."""
    return f"{order['attention']['step']} stands still: {order['attention']['cause']}"


def _placed_text(text: str, now: datetime) -> str:
    """Day and minute; of another year's the day, as `ls -l` does."""
    at = datetime.fromisoformat(text).astimezone(UTC)
    return at.strftime("%m-%d %H:%M" if at.year == now.year else "%Y-%m-%d")
