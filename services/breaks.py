"""Breaks: what reconciliation has found wrong. Each is a row with a state, and every change of it an event.

`open` until it is no longer so (`repaired`), or until staff say that it may stay so (`resolved`, with a reason). One
that was resolved is not opened again: a person has taken it upon themselves.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import Conflict, NotFound

RECONCILIATION = "reconciliation"  # who closes what mends itself

_FOUND = text("""
    WITH found AS (
        INSERT INTO orders.breaks AS b (kind, subject, order_id, detail)
        SELECT :kind, :subject, CAST(:order_id AS uuid), CAST(:detail AS jsonb)
        WHERE NOT EXISTS (
            SELECT FROM orders.breaks r WHERE r.kind = :kind AND r.subject = :subject AND r.state = 'resolved'
        )
        ON CONFLICT (kind, subject) WHERE state = 'open' DO UPDATE SET
            last_seen_at = now(), times_seen = b.times_seen + 1, detail = excluded.detail
        RETURNING b.*, xmax = 0 AS is_new
    ), told AS (
        INSERT INTO orders.break_events (break_id, type, data) SELECT id, 'break.opened', detail FROM found WHERE is_new
    )
    SELECT *, extract(epoch FROM now() - first_seen_at)::float8 AS open_seconds FROM found
""")

_CLOSE = """
    WITH closed AS (
        UPDATE orders.breaks SET
            state = '{state}', closed_at = now(), closed_by = :actor, reason = CAST(:reason AS text)
        WHERE {which} AND state = 'open' RETURNING *
    ), told AS (
        INSERT INTO orders.break_events (break_id, type, data, actor)
        SELECT id, 'break.{state}', jsonb_build_object('reason', CAST(:reason AS text)), :actor FROM closed
    ), audited AS (
        INSERT INTO orders.audit (order_id, actor, action, reason)
        SELECT order_id, :actor, 'resolve break ' || kind, CAST(:reason AS text) FROM closed
        WHERE '{state}' = 'resolved' AND order_id IS NOT NULL
    )
    SELECT * FROM closed
"""
_REPAIRED = text(_CLOSE.format(state="repaired", which="kind = :kind AND subject = :subject"))
_RESOLVED = text(_CLOSE.format(state="resolved", which="id = :id"))

_LIST = text("""
    SELECT * FROM orders.breaks
    WHERE (CAST(:state AS text) IS NULL OR state = :state) AND (CAST(:kind AS text) IS NULL OR kind = :kind)
      AND (CAST(:order_id AS uuid) IS NULL OR order_id = CAST(:order_id AS uuid))
      AND (CAST(:before AS bigint) IS NULL OR id < :before)
    ORDER BY id DESC LIMIT :limit
""")
_OPEN = text("SELECT * FROM orders.breaks WHERE state = 'open' AND kind = ANY (CAST(:kinds AS text[])) ORDER BY id")

_MARK = text("SELECT at FROM orders.reconciled_until WHERE what = :what")
_SET_MARK = text("""
    INSERT INTO orders.reconciled_until (what, at) VALUES (:what, :at)
    ON CONFLICT (what) DO UPDATE SET at = greatest(orders.reconciled_until.at, excluded.at)
""")


@dataclass(frozen=True)
class Break:
    id: int
    kind: str
    subject: str
    order_id: UUID | None
    detail: dict[str, Any]
    state: str
    first_seen_at: datetime
    last_seen_at: datetime
    times_seen: int
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None


@dataclass(frozen=True)
class Seen:
    """A break that is open: `is_new` if nobody had found it before; for how many seconds it has been open."""

    id: int
    is_new: bool
    open_seconds: float


async def found(
    session: AsyncSession, kind: str, subject: str, order_id: UUID | None = None, **detail: Any
) -> Seen | None:
    """Open the break, or see it once more. None: staff have resolved it."""
    parameters = {"kind": kind, "subject": subject, "order_id": order_id, "detail": json.dumps(detail, default=str)}
    row = (await (await session.connection()).execute(_FOUND, parameters)).first()
    return Seen(row.id, row.is_new, row.open_seconds) if row else None


async def repaired(session: AsyncSession, kind: str, subject: str, how: str) -> bool:
    """It is no longer so; False if it was not open."""
    parameters = {"kind": kind, "subject": subject, "actor": RECONCILIATION, "reason": how}
    return (await (await session.connection()).execute(_REPAIRED, parameters)).first() is not None


async def resolve(session: AsyncSession, break_id: int, actor: str, reason: str) -> Break:
    """Staff take it upon themselves; audited. A repeat by whoever it was is no error.

    Raises:
        NotFound: there is no such break.
        Conflict: `break_closed`: it has been closed otherwise.
    """
    connection = await session.connection()
    row = (await connection.execute(_RESOLVED, {"id": break_id, "actor": actor, "reason": reason})).first()
    if row is not None:
        return _break(row)
    present = (await connection.execute(text("SELECT * FROM orders.breaks WHERE id = :id"), {"id": break_id})).first()
    if present is None:
        raise NotFound("There is no such break.")
    if (present.state, present.closed_by, present.reason) != ("resolved", actor, reason):
        raise Conflict(f"This break is {present.state} already.", code="break_closed")
    return _break(present)


async def listed(
    session: AsyncSession,
    *,
    state: str | None = None,
    kind: str | None = None,
    order_id: UUID | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Break]:
    """Newest first."""
    parameters = {"state": state, "kind": kind, "order_id": order_id, "before": before, "limit": limit}
    return [_break(row) for row in await (await session.connection()).execute(_LIST, parameters)]


async def open_of(session: AsyncSession, kinds: Sequence[str]) -> list[Break]:
    """The open breaks of these kinds, oldest first."""
    return [_break(row) for row in await (await session.connection()).execute(_OPEN, {"kinds": list(kinds)})]


async def reconciled_until(session: AsyncSession, what: str) -> datetime | None:
    """Up to when `what` has been compared."""
    at: datetime | None = await (await session.connection()).scalar(_MARK, {"what": what})
    return at


async def set_reconciled_until(session: AsyncSession, what: str, at: datetime) -> None:
    """Never goes back."""
    await (await session.connection()).execute(_SET_MARK, {"what": what, "at": at})


def _break(row: Row[Any]) -> Break:
    return Break(**{name: getattr(row, name) for name in Break.__dataclass_fields__})
