"""The cart over HTTP, for customers and for guests, who have theirs by a cookie."""

import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request, Response
from pydantic import Field
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import OptionalUser, ServiceCaller
from api.deps import CartsSession, Resources, ResourcesDep
from api.guests import forget_guest, guest_token, keep_guest
from api.limits import limit
from api.routing import Router
from api.shapes import RequestModel, ResponseModel
from models.carts import Cart, CartOwner
from models.errors import NotFound
from models.messages import PricedProduct
from models.types import MAX_QUANTITY, Money, Service
from services import carts

router = Router(tags=["carts"])

UUID_FORM = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
EMPTY = Cart(version=0, lines=[])

Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
ProductId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Change = Callable[[AsyncSession, CartOwner], Awaitable[Cart]]


class AddToCart(RequestModel):
    """`userId` is what clients of the earlier platform send: one's own is ignored, another's is refused."""

    product_id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    quantity: Quantity
    user_id: str | None = None


class ChangeLine(RequestModel):
    quantity: Quantity


class MergeGuest(RequestModel):
    guest_token: Annotated[str, Field(min_length=1, max_length=4096)]
    customer_id: Annotated[str, Field(pattern=UUID_FORM)]


class CartLineView(ResponseModel):
    """Price as of now. A line that is no longer `forSale` counts for nothing in the total and cannot be ordered."""

    product_id: int
    sku: str
    name: str
    quantity: int
    unit_price: Money
    line_total: Money
    for_sale: bool


class CartView(ResponseModel):
    version: int
    lines: list[CartLineView]
    total: Money


@dataclass
class Shopper:
    """Whose cart is asked for; `owner` None: a guest who has none yet."""

    resources: Resources
    response: Response
    owner: CartOwner | None

    def require_owner(self) -> CartOwner:
        """The owner; a guest without a cart gets the cookie of a new one."""
        if self.owner is None:
            token = secrets.token_urlsafe(32)
            self.owner = CartOwner.guest(token)
            keep_guest(self.resources, self.response, token)
        return self.owner

    async def load(self) -> Cart:
        if self.owner is None:
            return EMPTY
        async with self.resources.sessions[Service.CARTS]() as session:
            return await carts.load(session, self.owner)

    async def change(self, change: Change) -> Cart:
        async with self.resources.sessions[Service.CARTS].begin() as session:
            return await change(session, self.require_owner())


async def _shopper(request: Request, response: Response, user: OptionalUser, resources: ResourcesDep) -> Shopper:
    """Whoever is signed in brings along what they had put in as a guest, if the login has not seen to it."""
    token = guest_token(request)
    guest = CartOwner.guest(token) if token else None
    if user is None:
        return Shopper(resources, response, guest)
    customer = CartOwner(customer_id=user.user_id)
    if guest is not None:
        async with resources.sessions[Service.CARTS].begin() as session:
            await carts.merge(session, guest, customer)
        forget_guest(response)
    return Shopper(resources, response, customer)


ShopperDep = Annotated[Shopper, Depends(_shopper)]
LIMITED = [Depends(limit("cart", 600, 60, by="caller"))]


@router.get("/api/cart")
async def get(shopper: ShopperDep) -> CartView:
    """The cart at the prices of now; one that was never used is empty, version 0."""
    cart = await shopper.load()
    return _view(shopper.resources, cart, await _priced(shopper.resources, cart))


@router.post("/api/cart/add", dependencies=LIMITED)
async def add(shopper: ShopperDep, body: AddToCart) -> CartView:
    """Put more of a product in. 404 `product_not_found`, 422 `quantity_limit` (99) or `line_limit` (100 products)."""
    prices = await _priced(shopper.resources, await shopper.load(), {body.product_id})
    _require_for_sale(prices.get(body.product_id))
    cart = await shopper.change(lambda session, owner: carts.add(session, owner, body.product_id, body.quantity))
    return await _changed(shopper, cart, prices)


@router.patch("/api/cart/items/{product_id}", dependencies=LIMITED)
async def change_line(shopper: ShopperDep, product_id: ProductId, body: ChangeLine) -> CartView:
    """Set the quantity of a line. 404 `line_not_found`, or `product_not_found` when it is no longer for sale."""
    cart = await shopper.load()
    if product_id not in (line.product_id for line in cart.lines):
        raise NotFound("This product is not in the cart.", code="line_not_found")
    prices = await _priced(shopper.resources, cart)
    _require_for_sale(prices.get(product_id))
    cart = await shopper.change(lambda session, owner: carts.set_quantity(session, owner, product_id, body.quantity))
    return await _changed(shopper, cart, prices)


@router.delete("/api/cart/items/{product_id}", dependencies=LIMITED)
async def remove_line(shopper: ShopperDep, product_id: ProductId) -> CartView:
    """Take a line out. 404 `line_not_found`."""
    if shopper.owner is None:
        raise NotFound("This product is not in the cart.", code="line_not_found")
    prices = await _priced(shopper.resources, await shopper.load())
    cart = await shopper.change(lambda session, owner: carts.remove(session, owner, product_id))
    return await _changed(shopper, cart, prices)


@router.delete("/api/cart", dependencies=LIMITED)
async def clear(shopper: ShopperDep) -> CartView:
    """Take everything out; an order under way keeps what it is buying."""
    cart = EMPTY if shopper.owner is None else await shopper.change(carts.clear)
    return _view(shopper.resources, cart, {})


@router.post("/internal/carts/merge", include_in_schema=False)
async def merge(_caller: ServiceCaller, session: CartsSession, body: MergeGuest) -> dict[str, bool]:
    """For the login: what the guest had goes to the customer; a repeat moves nothing."""
    await carts.merge(session, CartOwner.guest(body.guest_token), CartOwner(customer_id=UUID(body.customer_id)))
    return {"merged": True}


async def _priced(resources: Resources, cart: Cart, also: Collection[int] = ()) -> dict[int, PricedProduct]:
    """Asked before a change and never inside its transaction: no lock waits for another service."""
    return await resources.catalog.priced({line.product_id for line in cart.lines} | set(also))


async def _changed(shopper: Shopper, cart: Cart, prices: dict[int, PricedProduct]) -> CartView:
    """The cart after a change; prices of what somebody else put in at the same time are asked for now."""
    missing = {line.product_id for line in cart.lines} - prices.keys()
    if missing:
        prices = prices | await shopper.resources.catalog.priced(missing)
    return _view(shopper.resources, cart, prices)


def _require_for_sale(product: PricedProduct | None) -> None:
    if product is None or not product.active:
        raise NotFound("There is no such product for sale.", code="product_not_found")


def _view(resources: Resources, cart: Cart, prices: dict[int, PricedProduct]) -> CartView:
    total = Money(amount=0, currency=resources.settings.currency)
    lines = []
    for line in cart.lines:
        product = prices[line.product_id]  # products are never deleted
        line_total = product.unit_price * line.quantity
        if product.active:
            total = total + line_total
        lines.append(
            CartLineView(
                product_id=line.product_id,
                sku=product.sku,
                name=product.name,
                quantity=line.quantity,
                unit_price=product.unit_price,
                line_total=line_total,
                for_sale=product.active,
            )
        )
    return CartView(version=cart.version, lines=lines, total=total)
