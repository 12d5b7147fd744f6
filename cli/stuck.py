"""What is known of orders that do not come to an end: their row, their workflows, what these wait for."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
from rich.console import Console
from rich.markup import escape
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError

from core.settings import Settings
from core.temporal import TemporalConnector
from models.errors import Unavailable

LAST_EVENTS = 6
MOST_SHOWN = 5

OPEN = """
    SELECT id::text, number, status, payment_status, needs_attention, attention::text AS attention,
           cancel_requested IS NOT NULL AS cancel_requested, updated_at
    FROM orders.orders
    WHERE needs_attention OR id = ANY($1::uuid[])
       OR NOT (status IN ('rejected', 'expired', 'cancelled')
               OR (status = 'confirmed' AND payment_status = 'captured' AND cancel_requested IS NULL))
    ORDER BY updated_at
"""
BREAKS = """
    SELECT kind || ' ' || subject || ': ' || coalesce(detail ->> 'says', '') AS sentence FROM orders.breaks
    WHERE state = 'open' ORDER BY id
"""
RUNNING = "ExecutionStatus = 'Running' AND WorkflowType IN ('CheckoutWorkflow', 'FulfilmentWorkflow')"


async def open_orders(database_url: str, also: Sequence[str] = ()) -> list[asyncpg.Record]:
    """Rows of the orders that have not ended, that somebody has to look after, and of `also`.

    Raises what asyncpg raises.
    """
    return await _fetched(database_url, OPEN, list(also))


async def open_breaks(database_url: str) -> list[str]:
    """A sentence for each break that reconciliation has found, and neither it nor a person has closed.

    Raises what asyncpg raises.
    """
    return [row["sentence"] for row in await _fetched(database_url, BREAKS)]


async def open_workflows(settings: Settings) -> list[str]:
    """Ids. Raises Unavailable or RPCError."""
    client = await TemporalConnector(settings).client()
    return [run.id async for run in client.list_workflows(RUNNING)]


async def stuck_report(settings: Settings, rows: Sequence[asyncpg.Record]) -> list[dict[str, Any]]:
    """One entry an order: its row and each of its workflows that is open, as plain data."""
    try:
        client = await TemporalConnector(settings).client()
    except Unavailable as error:
        return [{"order": _plain(row), "workflows": [{"id": "?", "problem": str(error)}]} for row in rows]
    found = []
    for row in rows:
        kinds = ("checkout", "repair", "fulfilment")
        described = await asyncio.gather(*(_workflow(client, f"{kind}-{row['id']}") for kind in kinds))
        found.append({"order": _plain(row), "workflows": [one for one in described if one]})
    return found


def print_stuck(out: Console, report: Sequence[dict[str, Any]]) -> None:
    """The first few, for people."""
    for entry in report[:MOST_SHOWN]:
        order = entry["order"]
        words = f"{order['status']}, payment {order['payment_status']}, untouched for {order['age_seconds']:.0f} s"
        words += f", needs attention: {order['attention']}" if order["needs_attention"] else ""
        words += ", somebody wants it cancelled" if order["cancel_requested"] else ""
        out.print(f"[red]stuck[/] [bold]{order['id']}[/] {escape(words)}")
        for workflow in entry["workflows"] or [{"id": "no workflow", "problem": "nobody looks after it"}]:
            out.print(f"  {escape(workflow['id'])}: {escape(_line(workflow))}")
    if len(report) > MOST_SHOWN:
        out.print(f"[red]stuck[/] and {len(report) - MOST_SHOWN} more; see --json")


async def _fetched(database_url: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


def _line(workflow: dict[str, Any]) -> str:
    if "problem" in workflow:
        return str(workflow["problem"])
    pending = "; ".join(
        f"{one['type']} {one['state']}, attempt {one['attempt']}, {one['last_failure'] or 'no failure yet'}"
        for one in workflow["pending"]
    )
    said = f"{workflow['type']} {workflow['status']}, begun {workflow['age_seconds']:.0f} s ago"
    return f"{said}; waits for: {pending or 'no step'}; last events: {', '.join(workflow['last_events'])}"


async def _workflow(client: Client, workflow_id: str) -> dict[str, Any] | None:
    handle = client.get_workflow_handle(workflow_id)
    try:
        description = await handle.describe()
        events = [event async for event in handle.fetch_history_events()]
    except RPCError:
        return None  # there never was one
    return {
        "id": workflow_id,
        "type": description.workflow_type,
        "status": description.status.name.lower() if description.status else "unknown",
        "age_seconds": _age(description.start_time),
        "pending": _pending(description),
        "last_events": [
            f"{event.event_id} {EventType.Name(event.event_type).removeprefix('EVENT_TYPE_').lower()}"
            for event in events[-LAST_EVENTS:]
        ],
    }


def _pending(description: WorkflowExecutionDescription) -> list[dict[str, Any]]:
    return [
        {
            "type": one.activity_type.name,
            "state": PendingActivityState.Name(one.state).removeprefix("PENDING_ACTIVITY_STATE_").lower(),
            "attempt": one.attempt,
            "last_failure": one.last_failure.message,
        }
        for one in description.raw_description.pending_activities
    ]


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name != "updated_at"}
    return plain | {"age_seconds": _age(row["updated_at"])}


def _age(since: datetime) -> float:
    return (datetime.now(UTC) - since).total_seconds()
