"""Claims: an order takes the lines of a cart, buys them or gives them back.

A claim is `active`, then `consumed` or `released`, once; a cart has at most one active claim. Who needs both rows locks
the cart first. A cart may be changed while it is claimed: what was added since stays in it.
"""

from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.errors import Conflict, InvalidRequest
from models.messages import ClaimedCart, ClaimedLine

_FIND = text("""
    WITH existing AS MATERIALIZED (
        SELECT state, lines, version FROM carts.claims WHERE order_id = :order_id
    ), cart AS MATERIALIZED (
        SELECT id, version FROM carts.carts
        WHERE customer_id = :customer_id AND NOT EXISTS (SELECT FROM existing) FOR UPDATE
    )
    SELECT state, lines, version, NULL AS cart_id FROM existing
    UNION ALL SELECT NULL, NULL, version, id FROM cart
""")

# A statement of its own after the lock: only now every line that was there when the lock was given can be seen.
_CLAIM = text("""
    WITH found AS MATERIALIZED (
        SELECT jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', quantity) ORDER BY position) AS lines
        FROM carts.cart_lines WHERE cart_id = :cart_id
    ), made AS (
        INSERT INTO carts.claims (order_id, cart_id, state, lines, version)
        SELECT :order_id, :cart_id, 'active', lines, :version FROM found WHERE lines IS NOT NULL
        ON CONFLICT DO NOTHING
        RETURNING state, lines, version
    )
    SELECT made.state, found.lines, made.version FROM found LEFT JOIN made ON true
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

_CONSUME = text("""
    WITH cart AS MATERIALIZED (
        SELECT c.id FROM carts.claims k JOIN carts.carts c ON c.id = k.cart_id
        WHERE k.order_id = :order_id AND k.state = 'active' FOR UPDATE OF c
    )
    UPDATE carts.claims k SET state = 'consumed', ended_at = clock_timestamp()
    FROM cart WHERE k.order_id = :order_id AND k.cart_id = cart.id AND k.state = 'active'
    RETURNING k.cart_id
""")

_REMOVE_BOUGHT = text("""
    WITH bought AS MATERIALIZED (
        SELECT l.product_id, l.quantity FROM carts.claims k
        CROSS JOIN jsonb_to_recordset(k.lines) AS l (product_id bigint, quantity integer)
        WHERE k.order_id = :order_id
    ), removed AS (
        DELETE FROM carts.cart_lines c USING bought b
        WHERE c.cart_id = :cart_id AND c.product_id = b.product_id AND c.quantity <= b.quantity
        RETURNING c.product_id
    ), reduced AS (
        UPDATE carts.cart_lines c SET quantity = c.quantity - b.quantity FROM bought b
        WHERE c.cart_id = :cart_id AND c.product_id = b.product_id AND c.quantity > b.quantity
        RETURNING c.product_id
    )
    UPDATE carts.carts SET version = version + 1, updated_at = now()
    WHERE id = :cart_id AND (EXISTS (SELECT FROM removed) OR EXISTS (SELECT FROM reduced))
""")


async def claim(
    session: AsyncSession, customer_id: UUID, order_id: UUID, expected_version: int | None = None
) -> ClaimedCart:
    """Take the lines of the customer's cart for this order; a repeat answers the lines taken the first time.

    Raises:
        InvalidRequest: `cart_empty`.
        Conflict: `cart_changed`: another version than expected, another order has the lines, or this order gave them
            back already.
    """
    connection = await session.connection()
    found = (await connection.execute(_FIND, {"order_id": order_id, "customer_id": customer_id})).mappings().first()
    if found is None:
        raise InvalidRequest("The cart is empty.", code="cart_empty")
    if found["state"] is not None:
        return _stored(found)
    parameters = {"order_id": order_id, "cart_id": found["cart_id"], "version": found["version"]}
    if expected_version is not None and expected_version != found["version"]:
        raise _changed("The cart has changed since you looked at it.", found["version"])
    made = (await connection.execute(_CLAIM, parameters)).mappings().one()
    if made["lines"] is None:
        raise InvalidRequest("The cart is empty.", code="cart_empty")
    if made["state"] is not None:
        return _stored(made)
    # Refused by a unique index: by this order's own claim, made meanwhile, or by another order's active one.
    own = (await connection.execute(_READ, {"order_id": order_id})).mappings().first()
    if own is None:
        raise _changed("Another order is buying what is in this cart.", found["version"])
    return _stored(own)


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
    """Take what was bought out of the cart, keep what was added since. Does nothing unless the claim is active."""
    connection = await session.connection()
    cart_id = (await connection.execute(_CONSUME, {"order_id": order_id})).scalar()
    if cart_id is not None:
        await connection.execute(_REMOVE_BOUGHT, {"order_id": order_id, "cart_id": cart_id})


def _stored(claim: RowMapping) -> ClaimedCart:
    if claim["state"] == "released":
        raise _changed("This order has given its lines back to the cart.", claim["version"])
    return ClaimedCart(lines=[ClaimedLine(**line) for line in claim["lines"]], version=claim["version"])


def _changed(detail: str, version: int) -> Conflict:
    return Conflict(detail, code="cart_changed", cart_version=version)
