"""Carts: lines of customers and guests. What an order does with a cart is in services/claims.py.

Every change first takes the cart's row, which counts the version up, so changes of one cart queue and none is lost.
"""

from uuid import UUID

from sqlalchemy import TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.carts import Cart, CartLine, CartOwner
from models.errors import InvalidRequest, NotFound
from models.types import MAX_LINES, MAX_QUANTITY, uuid7
from services.claims import claim, consume_claim, release_claim

__all__ = ["add", "claim", "clear", "consume_claim", "load", "merge", "release_claim", "remove", "set_quantity"]

_OWNED = "(customer_id = :customer_id OR guest_token_hash = :guest_token_hash)"

_LOAD = text(f"""
    SELECT c.version, l.product_id, l.quantity FROM carts.carts c LEFT JOIN carts.cart_lines l ON l.cart_id = c.id
    WHERE {_OWNED} ORDER BY l.position
""")


def _open_statement(owner: str) -> TextClause:
    return text(f"""
        INSERT INTO carts.carts AS c (id, {owner}, version) VALUES (:id, :{owner}, 1)
        ON CONFLICT ({owner}) DO UPDATE SET version = c.version + 1, updated_at = now()
        RETURNING id, version
    """)


_OPEN = _open_statement("customer_id")
_OPEN_GUEST = _open_statement("guest_token_hash")

_CHANGE = text(f"""
    UPDATE carts.carts SET version = version + 1, updated_at = now() WHERE {_OWNED} RETURNING id, version
""")

_LINES = text("SELECT product_id, quantity FROM carts.cart_lines WHERE cart_id = :cart_id ORDER BY position")

_PUT = text("""
    INSERT INTO carts.cart_lines (cart_id, product_id, quantity, position)
    SELECT :cart_id, w.product_id, w.quantity,
           w.nth + (SELECT coalesce(max(position), 0) FROM carts.cart_lines WHERE cart_id = :cart_id)
    FROM unnest(CAST(:products AS bigint[]), CAST(:quantities AS integer[]))
         WITH ORDINALITY AS w (product_id, quantity, nth)
    ON CONFLICT (cart_id, product_id) DO UPDATE SET quantity = excluded.quantity
""")

_REMOVE = text("DELETE FROM carts.cart_lines WHERE cart_id = :cart_id AND product_id = :product_id")
_CLEAR = text("DELETE FROM carts.cart_lines WHERE cart_id = :cart_id")
_LOCK_GUEST = text("SELECT id FROM carts.carts WHERE guest_token_hash = :guest_token_hash FOR UPDATE")
_FORGET = text("DELETE FROM carts.carts WHERE id = :cart_id")


async def load(session: AsyncSession, owner: CartOwner) -> Cart:
    """The cart as it stands; one that was never made is empty, version 0."""
    rows = (await (await session.connection()).execute(_LOAD, _key(owner))).all()
    lines = [CartLine(product_id, quantity) for _, product_id, quantity in rows if product_id is not None]
    return Cart(version=rows[0].version if rows else 0, lines=lines)


async def add(session: AsyncSession, owner: CartOwner, product_id: int, quantity: int) -> Cart:
    """Put `quantity` more of a product in; the caller has made sure that it is for sale.

    Raises:
        InvalidRequest: `quantity_limit` (99 of a product), `line_limit` (100 products).
    """
    cart_id, version = await _open(session, owner)
    lines = await _lines(session, cart_id)
    lines[product_id] = lines.get(product_id, 0) + quantity
    if lines[product_id] > MAX_QUANTITY:
        raise InvalidRequest(f"A cart holds at most {MAX_QUANTITY} of a product.", code="quantity_limit")
    if len(lines) > MAX_LINES:
        raise InvalidRequest(f"A cart holds at most {MAX_LINES} products.", code="line_limit")
    await _put(session, cart_id, {product_id: lines[product_id]})
    return _cart(version, lines)


async def set_quantity(session: AsyncSession, owner: CartOwner, product_id: int, quantity: int) -> Cart:
    """Change a line to `quantity` (1-99).

    Raises:
        NotFound: `line_not_found`, the product is not in the cart.
    """
    cart_id, version, lines = await _with_line(session, owner, product_id)
    lines[product_id] = quantity
    await _put(session, cart_id, {product_id: quantity})
    return _cart(version, lines)


async def remove(session: AsyncSession, owner: CartOwner, product_id: int) -> Cart:
    """Take a line out.

    Raises:
        NotFound: `line_not_found`, the product is not in the cart.
    """
    cart_id, version, lines = await _with_line(session, owner, product_id)
    del lines[product_id]
    await (await session.connection()).execute(_REMOVE, {"cart_id": cart_id, "product_id": product_id})
    return _cart(version, lines)


async def clear(session: AsyncSession, owner: CartOwner) -> Cart:
    """Take everything out; an order under way keeps what it has claimed."""
    connection = await session.connection()
    changed = (await connection.execute(_CHANGE, _key(owner))).one_or_none()
    if changed is None:
        return Cart(version=0, lines=[])
    await connection.execute(_CLEAR, {"cart_id": changed.id})
    return Cart(version=changed.version, lines=[])


async def merge(session: AsyncSession, guest: CartOwner, customer: CartOwner) -> None:
    """Move a guest's lines into the customer's cart and forget the guest's. A repeat finds nothing to move.

    Nothing is refused: quantities are capped at 99 and lines over 100 are left out.
    """
    connection = await session.connection()
    guest_id = (await connection.execute(_LOCK_GUEST, {"guest_token_hash": guest.guest_token_hash})).scalar()
    if guest_id is None:
        return
    moved = await _lines(session, guest_id)
    await connection.execute(_FORGET, {"cart_id": guest_id})
    if not moved:
        return
    cart_id, _ = await _open(session, customer)
    lines = await _lines(session, cart_id)
    changed = {}
    for product_id, quantity in moved.items():
        if product_id in lines or len(lines) < MAX_LINES:
            changed[product_id] = lines[product_id] = min(MAX_QUANTITY, lines.get(product_id, 0) + quantity)
    await _put(session, cart_id, changed)


async def _open(session: AsyncSession, owner: CartOwner) -> tuple[UUID, int]:
    """The cart's id and new version, its row locked; made if there is none."""
    statement = _OPEN if owner.customer_id else _OPEN_GUEST
    parameters = {"id": uuid7(), **_key(owner)}
    row = (await (await session.connection()).execute(statement, parameters)).one()
    return row.id, row.version


async def _with_line(session: AsyncSession, owner: CartOwner, product_id: int) -> tuple[UUID, int, dict[int, int]]:
    changed = (await (await session.connection()).execute(_CHANGE, _key(owner))).one_or_none()
    lines = await _lines(session, changed.id) if changed else {}
    if changed is None or product_id not in lines:
        raise NotFound("This product is not in the cart.", code="line_not_found")
    return changed.id, changed.version, lines


async def _lines(session: AsyncSession, cart_id: UUID) -> dict[int, int]:
    rows = (await (await session.connection()).execute(_LINES, {"cart_id": cart_id})).all()
    return {row.product_id: row.quantity for row in rows}


async def _put(session: AsyncSession, cart_id: UUID, lines: dict[int, int]) -> None:
    parameters = {"cart_id": cart_id, "products": list(lines), "quantities": list(lines.values())}
    await (await session.connection()).execute(_PUT, parameters)


def _key(owner: CartOwner) -> dict[str, object]:
    return {"customer_id": owner.customer_id, "guest_token_hash": owner.guest_token_hash}


def _cart(version: int, lines: dict[int, int]) -> Cart:
    return Cart(version=version, lines=[CartLine(product, quantity) for product, quantity in lines.items()])
