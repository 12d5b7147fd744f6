"""Stock and reservations: what an order holds, sells or gives back. Nobody else writes stock.

A reservation is `active`, then `committed` or `released`, once; what was committed may be `restocked`. Every change is
one SQL statement guarded by that state, so it can be repeated, raced and replayed. Stock rows are always locked in the
order of their ids, and before the reservation's row: orders that share products, and calls for one order, wait for each
other and do not deadlock.

New stock is always computed from the row that was locked (`locked`), never from the row being updated: PostgreSQL first
tries an update on the version that the statement's snapshot shows, and checks constraints on it, before it notices that
there is a newer one.

Lock and statement timeouts leave here as the driver's errors: the caller's transaction is gone and may be run again.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.catalog import StockEvent
from models.errors import Conflict, NotFound, Unavailable
from models.messages import Reservation, Shortage
from models.types import ReservationState

ATTEMPTS = 3


def _crossing(changes: str) -> str:
    """The CTE that tells when stock runs low, out, or is back: once each time it passes the product's `low_at`.

    `changes` selects (product_id, before, after, low_at), what could be sold before and after the change.
    """
    return f"""crossed AS (
        INSERT INTO catalog.stock_events (product_id, type, available)
        SELECT product_id, CASE WHEN after > low_at THEN 'stock.back' WHEN after > 0 THEN 'stock.low'
                                ELSE 'stock.out' END, after
        FROM ({changes}) AS change
        WHERE (before > low_at) <> (after > low_at) OR (before > 0 AND after = 0)
    )"""


CONTENDED = "This reservation is being changed by somebody else."

# Several calls for one order meet at their stock, or at the reservation's unique key: `held` takes nothing then.
_RESERVE = text(f"""
    WITH existing AS MATERIALIZED (
        SELECT state, expires_at FROM catalog.reservations WHERE order_id = :order_id
    ), wanted AS MATERIALIZED (
        SELECT w.product_id, w.quantity
        FROM unnest(CAST(:products AS bigint[]), CAST(:quantities AS integer[])) AS w (product_id, quantity)
        WHERE NOT EXISTS (SELECT FROM existing)
    ), locked AS MATERIALIZED (
        SELECT s.product_id, s.on_hand, s.reserved, s.low_at
        FROM catalog.stock s JOIN wanted w USING (product_id)
        ORDER BY s.product_id FOR NO KEY UPDATE OF s
    ), short AS MATERIALIZED (
        SELECT w.product_id, w.quantity, coalesce(l.on_hand - l.reserved, 0) AS available
        FROM wanted w LEFT JOIN locked l USING (product_id)
        WHERE coalesce(l.on_hand - l.reserved, 0) < w.quantity
    ), held AS (
        INSERT INTO catalog.reservations (order_id, state, expires_at)
        SELECT :order_id, 'active', clock_timestamp() + make_interval(secs => :ttl)
        WHERE EXISTS (SELECT FROM wanted) AND NOT EXISTS (SELECT FROM short)
        ON CONFLICT (order_id) DO NOTHING
        RETURNING order_id, state, expires_at
    ), granted AS MATERIALIZED (
        SELECT h.order_id, w.product_id, w.quantity, l.on_hand, l.reserved, l.low_at
        FROM held h CROSS JOIN wanted w JOIN locked l USING (product_id)
    ), lines AS (
        INSERT INTO catalog.reservation_lines (order_id, product_id, quantity)
        SELECT order_id, product_id, quantity FROM granted
    ), taken AS (
        UPDATE catalog.stock s SET on_hand = g.on_hand, reserved = g.reserved + g.quantity
        FROM granted g WHERE s.product_id = g.product_id
    ), booked AS (
        INSERT INTO catalog.stock_ledger (product_id, kind, on_hand_delta, reserved_delta, order_id)
        SELECT product_id, 'reserve', 0, quantity, order_id FROM granted
    ), {
    _crossing('''
        SELECT product_id, on_hand - reserved AS before, on_hand - reserved - quantity AS after, low_at FROM granted
    ''')
}
    SELECT r.state, r.expires_at, extract(epoch FROM r.expires_at - clock_timestamp())::float8 AS seconds_left, (
        SELECT jsonb_agg(jsonb_build_object(
            'product_id', product_id, 'requested', quantity, 'available', available) ORDER BY product_id)
        FROM short
    ) AS shortages
    FROM (SELECT 1) AS one
    LEFT JOIN (SELECT state, expires_at FROM held UNION ALL SELECT state, expires_at FROM existing) AS r ON true
""")

_PROLONG = text("""
    UPDATE catalog.reservations
    SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(secs => :ttl))
    WHERE order_id = :order_id AND state = 'active'
    RETURNING state, expires_at, extract(epoch FROM expires_at - clock_timestamp())::float8 AS seconds_left
""")

_READ = text("""
    SELECT state, expires_at, extract(epoch FROM expires_at - clock_timestamp())::float8 AS seconds_left
    FROM catalog.reservations WHERE order_id = :order_id
""")

# `ended` waits for whoever holds the reservation and finds it in its newest state; only its winner touches stock.
_END = """
    WITH locked AS MATERIALIZED (
        SELECT s.product_id, s.on_hand, s.reserved, s.low_at, l.quantity
        FROM catalog.reservations r JOIN catalog.reservation_lines l USING (order_id)
        JOIN catalog.stock s USING (product_id)
        WHERE r.order_id = :order_id AND r.state = '{before}' ORDER BY s.product_id FOR NO KEY UPDATE OF s
    ), ended AS (
        UPDATE catalog.reservations SET state = '{state}', ended_at = clock_timestamp()
        WHERE order_id = :order_id AND state = '{before}' AND (SELECT count(*) FROM locked) > 0 RETURNING order_id
    ), given AS MATERIALIZED (
        SELECT locked.* FROM locked, ended
    ), changed AS (
        UPDATE catalog.stock s SET on_hand = l.on_hand + {on_hand}, reserved = l.reserved + {reserved}
        FROM given l WHERE s.product_id = l.product_id
    ), booked AS (
        INSERT INTO catalog.stock_ledger (product_id, kind, on_hand_delta, reserved_delta, order_id)
        SELECT l.product_id, '{kind}', {on_hand}, {reserved}, :order_id FROM given l
    ), {crossing}
    SELECT (SELECT count(*) FROM ended) AS ended,
           (SELECT state FROM catalog.reservations WHERE order_id = :order_id) AS before
"""


def _end(kind: str, before: str, state: str, *, on_hand: str, reserved: str) -> TextClause:
    """The statement that ends a reservation once, and what it adds to the stock of each line `l`."""
    after = f"l.on_hand - l.reserved + {on_hand} - ({reserved})"
    crossing = _crossing(
        f"SELECT l.product_id, l.on_hand - l.reserved AS before, {after} AS after, l.low_at FROM given l"
    )
    statement = _END.format(
        kind=kind, before=before, state=state, on_hand=on_hand, reserved=reserved, crossing=crossing
    )
    return text(statement)


_COMMIT = _end("commit", "active", "committed", on_hand="-l.quantity", reserved="-l.quantity")
_RELEASE = _end("release", "active", "released", on_hand="0", reserved="-l.quantity")
_RESTOCK = _end("restock", "committed", "restocked", on_hand="l.quantity", reserved="0")

_TOMBSTONE = text("""
    INSERT INTO catalog.reservations (order_id, state, expires_at, ended_at)
    VALUES (:order_id, 'released', clock_timestamp(), clock_timestamp())
    ON CONFLICT (order_id) DO NOTHING RETURNING order_id
""")

_EXPIRED = text("""
    SELECT order_id FROM catalog.reservations
    WHERE state = 'active' AND expires_at < clock_timestamp() ORDER BY expires_at LIMIT :limit
""")

_SET_ON_HAND = text(f"""
    WITH before AS MATERIALIZED (
        SELECT product_id, on_hand, reserved, coalesce(CAST(:low_at AS integer), low_at) AS low_at, low_at AS low_before
        FROM catalog.stock WHERE product_id = :product_id FOR NO KEY UPDATE
    ), changed AS (
        UPDATE catalog.stock s SET on_hand = :on_hand, reserved = b.reserved, low_at = b.low_at
        FROM before b WHERE s.product_id = b.product_id AND b.reserved <= :on_hand
                        AND (b.on_hand, b.low_before) <> (:on_hand, b.low_at)
    ), {
    _crossing('''
        SELECT product_id, on_hand - reserved AS before, :on_hand - reserved AS after, low_at FROM before
        WHERE reserved <= :on_hand
    ''')
}, booked AS (
        INSERT INTO catalog.stock_ledger (product_id, kind, on_hand_delta, reserved_delta, actor, reason)
        SELECT product_id, CASE WHEN on_hand < :on_hand THEN 'receive' ELSE 'adjust' END,
               :on_hand - on_hand, 0, :actor, :reason
        FROM before WHERE reserved <= :on_hand AND on_hand <> :on_hand
    )
    SELECT on_hand, reserved FROM before
""")


async def reserve(session: AsyncSession, order_id: UUID, lines: Mapping[int, int], ttl_seconds: int) -> Reservation:
    """Hold every line ({product id: quantity}) for `ttl_seconds`, or none.

    A repeat answers from the stored reservation, also after its end: RELEASED means that nothing is held and nothing
    will be. `state` None: nothing was held, `shortages` tell which products and what was there.

    Raises:
        ValueError: no lines, or a quantity under 1.
    """
    if not lines or min(lines.values()) < 1:
        raise ValueError("a reservation needs lines, each of at least one unit")
    products = sorted(lines)
    parameters = {
        "order_id": order_id,
        "products": products,
        "quantities": [lines[product] for product in products],
        "ttl": float(ttl_seconds),
    }
    row = await _one(session, _RESERVE, parameters)
    if row["state"] is not None:
        return _reservation(row)
    # Nothing was held. It may be that another call for this order held it while we waited, and left nothing for us: a
    # new statement can see that.
    if own := await _first(session, _READ, {"order_id": order_id}):
        return _reservation(own)
    if row["shortages"] is None:
        raise Unavailable(CONTENDED)
    return Reservation(state=None, shortages=[Shortage(**short) for short in row["shortages"]])


async def prolong(session: AsyncSession, order_id: UUID, ttl_seconds: int) -> Reservation:
    """Let an active reservation live `ttl_seconds` from now, never shorter than it had.

    Answers the reservation as it stands; `state` None if there is none.
    """
    parameters = {"order_id": order_id, "ttl": float(ttl_seconds)}
    prolonged = await _first(session, _PROLONG, parameters)
    row = prolonged or await _first(session, _READ, {"order_id": order_id})
    return _reservation(row) if row else Reservation(state=None)


async def state_of(session: AsyncSession, order_id: UUID) -> ReservationState | None:
    """The state of the order's reservation, None if it has none."""
    row = await _first(session, _READ, {"order_id": order_id})
    return ReservationState(row["state"]) if row else None


async def commit(session: AsyncSession, order_id: UUID) -> ReservationState | None:
    """Sell what is held. The state it ends in: RELEASED if that came first, None if nothing was ever reserved."""
    for _ in range(ATTEMPTS):
        row = await _one(session, _COMMIT, {"order_id": order_id})
        if row["ended"]:
            return ReservationState.COMMITTED
        if row["before"] is None:
            return None
        if row["before"] != ReservationState.ACTIVE:
            return ReservationState(row["before"])
        # It was active when we looked and ended while we waited for its row: now its end can be seen.
    raise Unavailable(CONTENDED)


async def release(session: AsyncSession, order_id: UUID) -> ReservationState:
    """Give back what is held. COMMITTED stays, and is the answer.

    An order that never reserved gets a RELEASED row all the same, so that a reserve still under way holds nothing.
    """
    for _ in range(ATTEMPTS):
        row = await _one(session, _RELEASE, {"order_id": order_id})
        if row["ended"]:
            return ReservationState.RELEASED
        if row["before"] is None:
            if await _first(session, _TOMBSTONE, {"order_id": order_id}):
                return ReservationState.RELEASED
        elif row["before"] != ReservationState.ACTIVE:
            return ReservationState(row["before"])
    raise Unavailable(CONTENDED)


async def restock(session: AsyncSession, order_id: UUID) -> ReservationState | None:
    """Put what was sold back on the shelf. The state it is in then: RESTOCKED, or what it was if it is not sold."""
    for _ in range(ATTEMPTS):
        row = await _one(session, _RESTOCK, {"order_id": order_id})
        if row["ended"]:
            return ReservationState.RESTOCKED
        if row["before"] is None:
            return None
        if row["before"] != ReservationState.COMMITTED:
            return ReservationState(row["before"])
    raise Unavailable(CONTENDED)


async def expired(session: AsyncSession, limit: int) -> list[UUID]:
    """Orders that hold stock longer than they may, by the database's clock; the longest overdue first."""
    connection = await session.connection()
    return list((await connection.execute(_EXPIRED, {"limit": limit})).scalars())


async def set_on_hand(
    session: AsyncSession, product_id: int, on_hand: int, *, actor: str, reason: str = "", low_at: int | None = None
) -> None:
    """Set what is on the shelf; the difference goes into the ledger under `actor`. With `low_at` units or fewer to
    sell, the product counts as low on stock from now on.

    Raises:
        NotFound: no such product.
        Conflict: `stock_reserved`, shoppers already hold more than that.
    """
    parameters = {
        "product_id": product_id,
        "on_hand": on_hand,
        "actor": actor,
        "reason": reason,
        "low_at": low_at,
    }
    before = await _first(session, _SET_ON_HAND, parameters)
    if before is None:
        raise NotFound("There is no such product.")
    if before["reserved"] > on_hand:
        raise Conflict(
            f"{before['reserved']} units are reserved by orders under way.",
            code="stock_reserved",
            reserved=before["reserved"],
        )


async def stock_events(session: AsyncSession, before: int | None, limit: int) -> list[StockEvent]:
    """When products ran low, out, or were there again; newest first, older than the event `before`."""
    query = text("""
        SELECT e.id, e.product_id, p.sku, p.name, e.type, e.available, e.at
        FROM catalog.stock_events e JOIN catalog.products p ON p.id = e.product_id
        WHERE CAST(:before AS bigint) IS NULL OR e.id < :before ORDER BY e.id DESC LIMIT :limit
    """)
    rows = await (await session.connection()).execute(query, {"before": before, "limit": limit})
    return [StockEvent(**row) for row in rows.mappings()]


def _reservation(row: RowMapping) -> Reservation:
    left = max(0.0, row["seconds_left"])
    return Reservation(state=ReservationState(row["state"]), expires_at=row["expires_at"], seconds_left=left)


async def _first(session: AsyncSession, statement: Any, parameters: dict[str, Any]) -> RowMapping | None:
    connection = await session.connection()
    return (await connection.execute(statement, parameters)).mappings().first()


async def _one(session: AsyncSession, statement: Any, parameters: dict[str, Any]) -> RowMapping:
    connection = await session.connection()
    return (await connection.execute(statement, parameters)).mappings().one()
