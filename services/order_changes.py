"""The single place that moves an order: one statement changes the row and tells the customer's event log."""

import json
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import TextualSelect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import NotFound
from models.orders import Order
from models.types import EventType, OrderStatus, PaymentStatus
from services import events

ENDED = tuple(status for status in OrderStatus if status.is_ended)
COLUMNS = tuple(Order.__table__.columns)  # type: ignore[attr-defined]


def columns_of(row: str) -> str:
    """What an Order is made of, by name: a process of before a migration goes on beside a column that it adds."""
    return ", ".join(f"{row}.{column.name}" for column in COLUMNS)


# What an event says of the order that it belongs to, beside its own data.
FACTS = """jsonb_build_object(
    'orderId', {row}.id, 'type', CAST(:type AS text), 'number', {row}.number, 'status', {row}.status,
    'paymentStatus', {row}.payment_status, 'needsAttention', {row}.needs_attention
)"""

# `due` is decided on the row as it is once it is locked. Whether an event of this key is there already is seen as of
# when the statement began: of two that tell the same at the same moment, the second breaks the log's unique key and is
# undone as a whole; `_run` repeats it, and finds the event.
_CHANGE = """
    WITH found AS MATERIALIZED (
        SELECT * FROM orders.orders WHERE id = :order_id FOR NO KEY UPDATE
    ), due AS MATERIALIZED (
        SELECT changed.*, {key} AS event_key
        FROM found, jsonb_populate_record(
            CAST(ROW(found.*) AS orders.orders),
            CAST(:changes AS jsonb) || jsonb_strip_nulls(
                jsonb_build_object('payment_status', CAST(:payment AS jsonb) ->> found.payment_status)
            )
        ) AS changed
        WHERE {due}
    ), entry AS MATERIALIZED (
        SELECT customer_id, id AS order_id, event_key, CAST(:type AS text) AS type,
               {facts} || CAST(:data AS jsonb) AS data FROM due
    ), {telling}, audited AS (
        INSERT INTO orders.audit (order_id, actor, action, reason)
        SELECT id, CAST(:actor AS text), status, CAST(:reason AS text) FROM due WHERE CAST(:actor AS text) <> ''
    ), changed AS (
        UPDATE orders.orders o SET
            status = due.status, payment_status = due.payment_status, action_required = due.action_required,
            refusal = due.refusal, cancel_reason = due.cancel_reason, cancel_requested = due.cancel_requested,
            needs_attention = due.needs_attention, attention = due.attention, updated_at = now()
        FROM due WHERE o.id = due.id RETURNING o.*
    )
    SELECT {changed} FROM changed UNION ALL SELECT {found} FROM found WHERE NOT EXISTS (SELECT FROM changed)
"""


def _statement(key: str, due: str) -> TextualSelect:
    statement = _CHANGE.format(
        key=key,
        due=due,
        facts=FACTS.format(row="due"),
        telling=events.telling("entry"),
        changed=columns_of("changed"),
        found=columns_of("found"),
    )
    return text(statement).columns(*COLUMNS)


_TOLD = "EXISTS (SELECT FROM orders.customer_event e WHERE e.order_id = found.id AND e.event_key = :key)"

# What the row says of the shopper's cards: the attempt that it waits on, and whether that one was declined.
_CARD = """(coalesce(CAST(found.action_required ->> 'attempt' AS integer), 0),
            coalesce(found.action_required ->> 'type' = 'payment_method', false))"""

_MOVE = _statement(
    "CAST(:key AS text)",
    f"""found.status = ANY (CAST(:allowed AS text[])) AND found.payment_status <> ALL (CAST(:late_after AS text[]))
        AND (CAST(:attempt AS integer) IS NULL
             OR {_CARD} <= (CAST(:attempt AS integer), CAST(:declined AS boolean))) AND NOT {_TOLD}""",
)

# The state is the guard against repeats here; the key must differ each time that attention comes and goes.
_ATTEND = _statement(
    "CAST(:key AS text) || ':' || (SELECT count(*) FROM orders.customer_event e WHERE e.order_id = found.id)",
    """found.attention IS DISTINCT FROM changed.attention AND found.status <> ALL (CAST(:ended AS text[]))
       AND (CAST(:only AS text) = '' OR found.attention ->> 'step' = CAST(:only AS text))""",
)


async def move(
    session: AsyncSession,
    order_id: UUID,
    event: EventType,
    *,
    allowed: Collection[OrderStatus],
    late_after: Collection[PaymentStatus] = (),
    late_beyond: tuple[int, bool] | None = None,
    changes: Mapping[str, Any] | None = None,
    payment: Mapping[PaymentStatus, PaymentStatus] | None = None,
    key: str = "",
    data: Mapping[str, Any] | None = None,
    actor: str = "",
    reason: str = "",
) -> Order:
    """Change columns of an order that is in an `allowed` status, and tell `event`; once for each `key`.

    `payment` changes the payment's status by what it is; one that is not in it stays. With an `actor` a change is
    audited under the order's new status. A change that comes late or twice leaves everything as it is. Late is one
    whose order has moved on, whose payment is in `late_after`, or whose row says more of the cards than `late_beyond`:
    an attempt, and whether it was declined. Returns the row as it stands. The session must commit each statement by
    itself.

    Raises:
        NotFound: there is no such order.
    """
    parameters = {
        "key": key or event.value,
        "allowed": [status.value for status in allowed],
        "late_after": [status.value for status in late_after],
        "attempt": late_beyond and late_beyond[0],
        "declined": late_beyond and late_beyond[1],
        "payment": json.dumps(payment or {}),
        "actor": actor,
        "reason": reason,
    }
    return await _run(session, _MOVE, order_id, event, changes or {}, data or {}, parameters)


async def attend(
    session: AsyncSession,
    order_id: UUID,
    event: EventType,
    attention: Mapping[str, str] | None,
    told: str,
    *,
    only: str = "",
) -> Order:
    """Set or clear (None) what stands still, unless it is so already or the order has ended. Returns the row.

    `only`: leave every other step's mark as it is.

    Raises:
        NotFound: there is no such order.
        IntegrityError: twice, something else was told in the same moment; nothing has changed, ask again.
    """
    changes = {"needs_attention": attention is not None, "attention": attention}
    parameters = {
        "key": f"{event.value}:{told}",
        "ended": [status.value for status in ENDED],
        "only": only,
        "payment": "{}",
        "actor": "",
        "reason": "",
    }
    return await _run(session, _ATTEND, order_id, event, changes, {"step": told} if told else {}, parameters)


async def _run(
    session: AsyncSession,
    statement: TextualSelect,
    order_id: UUID,
    event: EventType,
    changes: Mapping[str, Any],
    data: Mapping[str, Any],
    parameters: dict[str, Any],
) -> Order:
    parameters |= {
        "order_id": order_id,
        "type": event.value,
        "changes": json.dumps(changes),
        "data": json.dumps(data),
    }
    connection = await session.connection()
    try:
        result = await connection.execute(statement, parameters)
    except IntegrityError:
        result = await connection.execute(statement, parameters)  # told by somebody else a moment ago: see above
    row = result.mappings().first()
    if row is None:
        raise NotFound("no such order")
    return Order(**row)
