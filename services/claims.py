"""Claims: an order takes the lines of a cart, buys them or gives them back.

A claim is `active`, then `consumed` or `released`, once; a cart has at most one active claim. Who needs both rows locks
the cart first. A cart may be changed while it is claimed: what was added since stays in it.
"""

from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import Conflict, InvalidRequest, Unavailable
from models.messages import ClaimedCart, ClaimedLine

ATTEMPTS = 3
CONTENDED = "This cart is being changed by somebody else."

# Waiting for the cart may show lines of before the wait beside a version of after it. Every change of lines counts
# the version up, so a version that is not the one `seen` says that the lines are old, and nothing is claimed.
_CLAIM = text("""
    WITH existing AS MATERIALIZED (
        SELECT state, lines, version FROM carts.claims WHERE order_id = :order_id
    ), seen AS MATERIALIZED (
        SELECT id, version FROM carts.carts WHERE customer_id = :customer_id
    ), cart AS MATERIALIZED (
        SELECT id, version FROM carts.carts
        WHERE customer_id = :customer_id AND NOT EXISTS (SELECT FROM existing) FOR UPDATE
    ), found AS MATERIALIZED (
        SELECT jsonb_agg(jsonb_build_object('product_id', l.product_id, 'quantity', l.quantity) ORDER BY l.position)
            AS lines
        FROM carts.cart_lines l JOIN cart ON l.cart_id = cart.id
    ), made AS (
        INSERT INTO carts.claims (order_id, cart_id, state, lines, version)
        SELECT :order_id, cart.id, 'active', found.lines, cart.version
        FROM cart JOIN seen USING (id, version), found
        WHERE found.lines IS NOT NULL AND cart.version = coalesce(CAST(:expected AS integer), cart.version)
        ON CONFLICT DO NOTHING
        RETURNING state, lines, version
    )
    SELECT own.state, own.lines, own.version, cart.version AS cart_version, found.lines IS NULL AS empty,
           cart.version IS DISTINCT FROM seen.version AS stale
    FROM found LEFT JOIN (SELECT * FROM made UNION ALL SELECT * FROM existing) AS own ON true
    LEFT JOIN cart ON true LEFT JOIN seen ON seen.id = cart.id
""")

_READ = text("SELECT state, lines, version FROM carts.claims WHERE order_id = :order_id")

_RELEASE = text("""
    INSERT INTO carts.claims AS c (order_id, state, lines, version, ended_at)
    VALUES (:order_id, 'released', '[]', 0, clock_timestamp())
    ON CONFLICT (order_id) DO UPDATE SET state = 'released', ended_at = clock_timestamp() WHERE c.state = 'active'
""")

_HELD = text("""
    SELECT order_id FROM carts.claims
    WHERE state = 'active' AND created_at < clock_timestamp() - make_interval(secs => :age)
    ORDER BY created_at LIMIT :limit
""")

# As in _CLAIM: nothing happens to lines that may be older than the lock on their cart.
_CONSUME = text("""
    WITH claim AS MATERIALIZED (
        SELECT cart_id, lines FROM carts.claims WHERE order_id = :order_id AND state = 'active'
    ), seen AS MATERIALIZED (
        SELECT id, version FROM carts.carts WHERE id = (SELECT cart_id FROM claim)
    ), cart AS MATERIALIZED (
        SELECT id, version FROM carts.carts WHERE id = (SELECT cart_id FROM claim) FOR UPDATE
    ), ended AS (
        UPDATE carts.claims SET state = 'consumed', ended_at = clock_timestamp()
        FROM cart JOIN seen USING (id, version) WHERE order_id = :order_id AND state = 'active'
        RETURNING cart_id
    ), bought AS MATERIALIZED (
        SELECT ended.cart_id, l.product_id, l.quantity
        FROM ended, claim, jsonb_to_recordset(claim.lines) AS l (product_id bigint, quantity integer)
    ), removed AS (
        DELETE FROM carts.cart_lines c USING bought b
        WHERE c.cart_id = b.cart_id AND c.product_id = b.product_id AND c.quantity <= b.quantity
        RETURNING c.product_id
    ), reduced AS (
        UPDATE carts.cart_lines c SET quantity = c.quantity - b.quantity FROM bought b
        WHERE c.cart_id = b.cart_id AND c.product_id = b.product_id AND c.quantity > b.quantity
        RETURNING c.product_id
    ), counted AS (
        UPDATE carts.carts SET version = version + 1, updated_at = now() FROM ended
        WHERE id = ended.cart_id AND (EXISTS (SELECT FROM removed) OR EXISTS (SELECT FROM reduced))
    )
    SELECT EXISTS (SELECT FROM cart) AND NOT EXISTS (SELECT FROM cart JOIN seen USING (id, version)) AS stale
""")


async def claim(
    session: AsyncSession, customer_id: UUID, order_id: UUID, expected_version: int | None = None
) -> ClaimedCart:
    """Take the lines of the customer's cart for this order; a repeat answers the lines taken the first time.

    Raises:
        InvalidRequest: `cart_empty`.
        Conflict: `cart_changed`: another version than expected, another order has the lines, or this order gave them
            back already.
        Unavailable: the cart changes faster than it can be claimed; ask again.
    """
    connection = await session.connection()
    parameters = {"order_id": order_id, "customer_id": customer_id, "expected": expected_version}
    for _ in range(ATTEMPTS):
        found = (await connection.execute(_CLAIM, parameters)).mappings().one()
        if found["state"] is not None:
            return _stored(found)
        if found["cart_version"] is None or (found["empty"] and not found["stale"]):
            raise InvalidRequest("The cart is empty.", code="cart_empty")
        if expected_version is not None and expected_version != found["cart_version"]:
            raise _changed("The cart has changed since you looked at it.", found["cart_version"])
        if found["stale"]:
            continue
        # Refused by a unique index: by this order's own claim, made meanwhile, or by another order's active one.
        own = (await connection.execute(_READ, {"order_id": order_id})).mappings().first()
        if own is None:
            raise _changed("Another order is buying what is in this cart.", found["cart_version"])
        return _stored(own)
    raise Unavailable(CONTENDED)


async def release_claim(session: AsyncSession, order_id: UUID) -> None:
    """Give the lines back to the cart, which never lost them. Idempotent; a consumed claim stays consumed.

    An order that never claimed gets a RELEASED row all the same, so that a claim still under way is refused.
    """
    await (await session.connection()).execute(_RELEASE, {"order_id": order_id})


async def held(session: AsyncSession, older_than_seconds: int, limit: int) -> list[UUID]:
    """Orders that have held the lines of a cart for so long (database clock), the longest first."""
    connection = await session.connection()
    rows = await connection.execute(_HELD, {"age": float(older_than_seconds), "limit": limit})
    return list(rows.scalars())


async def consume_claim(session: AsyncSession, order_id: UUID) -> None:
    """Take what was bought out of the cart, keep what was added since. Does nothing unless the claim is active.

    Raises:
        Unavailable: the cart changes faster than it can be cleared; ask again.
    """
    connection = await session.connection()
    for _ in range(ATTEMPTS):
        if not (await connection.execute(_CONSUME, {"order_id": order_id})).scalar():
            return
    raise Unavailable(CONTENDED)


def _stored(claim: RowMapping) -> ClaimedCart:
    if claim["state"] == "released":
        raise _changed("This order has given its lines back to the cart.", claim["version"])
    return ClaimedCart(lines=[ClaimedLine(**line) for line in claim["lines"]], version=claim["version"])


def _changed(detail: str, version: int) -> Conflict:
    return Conflict(detail, code="cart_changed", cart_version=version)
