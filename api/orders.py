"""What a shopper does with an order over HTTP: place, pay, cancel. See api/order_lists.py for reading."""

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from pydantic import Field

from api import checkouts
from api.auth import CurrentUser, StaffUser
from api.deps import Resources, ResourcesDep
from api.limits import limit
from api.order_views import OrderView, SeenOrder, order_view
from api.routing import Router
from api.shapes import GivenMoney, RequestModel
from core.settings import Settings
from core.telemetry import current_trace_id
from models.errors import BadRequest, Conflict, InvalidRequest, MercatoError, PaymentRequired, Unavailable
from models.messages import CheckoutInput, FulfilmentInput, OrderLine, StaffAction, UsePaymentMethod
from models.orders import Order
from models.types import OrderStatus, PaymentStatus, uuid7
from services import orders, placing
from services.placing import RequestKey

router = Router(tags=["orders"])

KEY_FORM = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
MAX_WAIT_SECONDS = 10.0

PaymentMethodId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_]+$")]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


class Address(RequestModel):
    """Where it goes; every line as it would stand on the parcel."""

    name: Text
    line1: Text
    line2: Text = ""
    city: Text
    postal_code: Annotated[str, Field(max_length=20, pattern=r"^[^\x00]*$")]
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class PlaceOrder(RequestModel):
    """`userId` is what clients of the earlier platform send: one's own is ignored, another's is refused."""

    payment_method_id: PaymentMethodId
    user_id: str | None = None
    expected_total: GivenMoney | None = None
    cart_version: int | None = None
    shipping_address: Address | None = None


class PayOrder(RequestModel):
    payment_method_id: PaymentMethodId


class ResolveOrder(RequestModel):
    """`resolve`: done by hand, as `reason` tells; `retry`: try it again now. No `step`: the one that stands still."""

    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
    action: Literal["resolve", "retry"] = "resolve"
    step: Annotated[str, Field(max_length=50, pattern="^[a-z_]*$")] = ""


class CancelOrder(RequestModel):
    reason: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] = ""


async def idempotency_key(
    key: Annotated[
        str | None, Header(alias="Idempotency-Key", description="1 to 255 printable characters; binds for 7 days")
    ] = None,
) -> str:
    """The client's name for this request: a repeat with it is not a second order."""
    if not key:
        raise BadRequest("send an Idempotency-Key header", code="idempotency_key_required")
    if not KEY_FORM.fullmatch(key):
        raise BadRequest("an Idempotency-Key has 1 to 255 printable characters", code="idempotency_key_invalid")
    return key


async def seconds_to_wait(
    resources: ResourcesDep,
    prefer: Annotated[str | None, Header(description="`wait=N`: seconds to wait for the outcome, at most 10")] = None,
) -> float:
    """`Prefer: wait=N` (RFC 7240); a preference that makes no sense is no preference."""
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,6}(?:\.\d{1,3})?)\s*(?:$|[,;])", prefer or "")
    return min(float(found[1]), MAX_WAIT_SECONDS) if found else resources.settings.place_wait_seconds


Key = Annotated[str, Depends(idempotency_key)]
Wait = Annotated[float, Depends(seconds_to_wait)]
Found = tuple[Order, Sequence[OrderLine]]
LIMITED = [Depends(limit("checkout", 120, 60, by="user"))]


STILL_GOING: dict[int | str, dict[str, Any]] = {
    202: {"model": OrderView, "description": "Still going, or waiting for the shopper: follow the events"}
}


@router.post(
    "/api/orders/place", status_code=201, response_model=OrderView, responses=STILL_GOING, dependencies=LIMITED
)
async def place(
    request: Request, user: CurrentUser, key: Key, wait: Wait, resources: ResourcesDep, body: PlaceOrder
) -> Response:
    """Check out the cart. 201 confirmed, 202 still going, 402 declined, 409 or 422 rejected; safe to repeat."""
    bound = _request_key(request, user.user_id, key, body)
    checkout = _checkout_of(resources.settings, user.user_id, body)
    order_id, repeat = await _bind_placement(resources, bound, checkout, body.shipping_address, wait)
    found: Found | None = None
    try:
        if not repeat:
            await _start(resources, checkout, wait)
        elif (order := await _read(resources, order_id)).status == OrderStatus.PENDING:
            await checkouts.start(_checkouts(resources), CheckoutInput.model_validate(order.checkout), wait)
        async with resources.sessions[_ORDERS]() as session:
            found = await placing.answer(session, bound, order_id)
    except Unavailable as error:
        raise _with_order(error, order_id) from error
    finally:
        if found is None:  # else the key was let go with the answer
            await _release(resources, bound)
    return _answer(found, user, repeat=repeat)


@router.post(
    "/api/orders/{order_id}/payment",
    status_code=201,
    response_model=OrderView,
    responses=STILL_GOING,
    dependencies=LIMITED,
)
async def pay(
    request: Request, user: CurrentUser, order: SeenOrder, key: Key, wait: Wait, resources: ResourcesDep, body: PayOrder
) -> Response:
    """Another card for the same reservation."""
    bound = _request_key(request, user.user_id, key, body)
    _, repeat = await _bind(resources, bound, order.id, wait)
    try:
        order = await _read(resources, order.id)
        if order.status == OrderStatus.ACTION_REQUIRED:
            card = UsePaymentMethod(payment_method_id=body.payment_method_id, actor=str(user.user_id))
            if not await checkouts.send_card(_checkouts(resources), order.id, f"{user.user_id}:{key}", card, wait):
                order = await _read(resources, order.id)
                if order.status == OrderStatus.ACTION_REQUIRED:
                    # that was said of the card before: of this one nobody knows yet
                    return _response(await _with_lines(resources, order.id), user, status=202, repeat=repeat)
        elif not repeat:
            raise Conflict(f"the order is {order.status}, it waits for no card", code="not_payable")
        return _answer(await _with_lines(resources, order.id), user, repeat=repeat)
    except Conflict as error:
        await _forget(resources, bound, repeat)
        raise _with_order(error, order.id) from error
    except Unavailable as error:
        # The card may be under way all the same: the key stays bound, so that a repeat joins it and is no second wish.
        raise _with_order(error, order.id) from error
    finally:
        await _release(resources, bound)


@router.post("/api/orders/{order_id}/cancel", response_model=OrderView, responses=STILL_GOING, dependencies=LIMITED)
async def cancel(
    request: Request,
    user: CurrentUser,
    order: SeenOrder,
    key: Key,
    wait: Wait,
    resources: ResourcesDep,
    body: CancelOrder | None = None,
) -> Response:
    """Cancel an order: what is held goes back; of a sold one, the money is refunded and the stock put back."""
    body = body or CancelOrder()
    bound = _request_key(request, user.user_id, key, body)
    _, repeat = await _bind(resources, bound, order.id, wait)
    try:
        action = StaffAction(actor=f"{user.role}:{user.user_id}", reason=body.reason or "asked for by the shopper")
        order = await _cancelled(resources, await _read(resources, order.id), action, wait)
        if order.status not in (*orders.OPEN, OrderStatus.CONFIRMED, OrderStatus.CANCELLED):
            raise Conflict(f"the order is {order.status}, it cannot be cancelled", code="not_cancellable")
        status = 200 if order.status == OrderStatus.CANCELLED else 202
        return _response(await _with_lines(resources, order.id), user, status=status, repeat=repeat)
    except (Conflict, Unavailable) as error:
        await _forget(resources, bound, repeat)
        raise _with_order(error, order.id) from error
    finally:
        await _release(resources, bound)


@router.post("/api/orders/{order_id}/resolve", response_model=OrderView, dependencies=LIMITED)
async def resolve(user: StaffUser, order: SeenOrder, resources: ResourcesDep, body: ResolveOrder) -> Response:
    """Staff: a step stands still. Say that it was done by hand, or have it tried again at once. Audited."""
    action = StaffAction(actor=f"{user.role}:{user.user_id}", reason=body.reason, step=body.step)
    await checkouts.mend(_checkouts(resources), order.id, body.action, action)
    return _response(await _with_lines(resources, order.id), user, status=200, repeat=False)


_ORDERS = orders.SERVICE


def _checkout_of(settings: Settings, user_id: UUID, body: PlaceOrder) -> CheckoutInput:
    """The workflow's input for a new order."""
    return CheckoutInput(
        order_id=uuid7(),
        customer_id=user_id,
        payment_method_id=body.payment_method_id,
        expected_total=body.expected_total,
        cart_version=body.cart_version,
        reservation_ttl_seconds=settings.reservation_ttl_seconds,
        fast_path=settings.fast_path,
        fast_step_seconds=settings.fast_step_seconds,
        round_seconds=settings.round_seconds,
        round_pause_seconds=settings.round_pause_seconds,
        attempt_seconds=settings.attempt_seconds,
    )


async def _cancelled(resources: Resources, order: Order, action: StaffAction, wait: float) -> Order:
    """Do what undoes the order where it stands; the row as it stands after that."""
    through, sold = _checkouts(resources), order.status == OrderStatus.CONFIRMED
    clock = asyncio.get_running_loop().time
    until = clock() + wait
    word = order.cancel_requested is None  # one word is enough, however often a wish is repeated
    if order.status in orders.OPEN:
        checkout = CheckoutInput.model_validate(order.checkout)
        sold = not await checkouts.cancel(through, checkout, action, wait, word=word)
        order = await _read(resources, order.id)
    if sold or order.status == OrderStatus.CONFIRMED:
        run = FulfilmentInput.model_validate({**order.checkout, "cancel": None})
        await checkouts.cancel_sold(through, run, action, until - clock(), word=word)
        order = await _read(resources, order.id)
    if order.status in (*orders.OPEN, OrderStatus.CONFIRMED) and word:
        # Nobody has carried it out yet: should the order be sold all the same, reconciliation finds the wish here.
        async with resources.sessions[_ORDERS]() as session:
            order = await orders.request_cancel(session, order.id, action.actor, action.reason)
    return order


async def _bind_placement(
    resources: Resources, bound: RequestKey, checkout: CheckoutInput, address: Address | None, wait: float
) -> tuple[UUID, bool]:
    """The order that the key is bound to, and whether it is a repeat: else key and pending order are written now."""
    async with resources.sessions[_ORDERS]() as session:
        placed = await placing.place(
            session,
            bound,
            checkout,
            currency=resources.settings.currency,
            shipping_address=address.model_dump(by_alias=True) if address else None,
            trace_id=current_trace_id(),
            in_flight_seconds=wait + 5,
            ttl=_key_ttl(resources),
        )
    if placed:
        return checkout.order_id, False
    async with resources.sessions[_ORDERS].begin() as session:
        return await placing.join(session, bound, in_flight_seconds=wait + 5), True


async def _start(resources: Resources, checkout: CheckoutInput, wait: float) -> None:
    faults, about = resources.faults, (checkout.order_id, checkout.customer_id)
    if faults:
        await faults.reach("start_checkout", "before", *about)
    await checkouts.start(_checkouts(resources), checkout, wait)
    if faults:
        await faults.reach("start_checkout", "after", *about)


async def _bind(resources: Resources, bound: RequestKey, order_id: UUID, wait: float) -> tuple[UUID, bool]:
    async with resources.sessions[_ORDERS].begin() as session:
        return await placing.bind(session, bound, order_id, in_flight_seconds=wait + 5, ttl=_key_ttl(resources))


async def _release(resources: Resources, bound: RequestKey) -> None:
    async with resources.sessions[_ORDERS]() as session:
        await placing.release(session, bound)


async def _forget(resources: Resources, bound: RequestKey, repeat: bool) -> None:
    """A 409 changed nothing and a 503 is not kept: the same key may be tried again."""
    if not repeat:
        async with resources.sessions[_ORDERS]() as session:
            await placing.forget(session, bound)


async def _read(resources: Resources, order_id: UUID) -> Order:
    async with resources.sessions[_ORDERS]() as session:
        return await orders.get(session, order_id)


async def _with_lines(resources: Resources, order_id: UUID) -> Found:
    async with resources.sessions[_ORDERS]() as session:
        return await orders.with_lines(session, order_id)


def _answer(found: Found, user: CurrentUser, *, repeat: bool) -> Response:
    """What a placed or paid order answers, from its state now."""
    order, _ = found
    refusal = _refusal_of(order)
    if refusal:
        raise _with_order(refusal, order.id, repeat=repeat)
    return _response(found, user, status=202 if order.status in orders.OPEN else 201, repeat=repeat)


def _refusal_of(order: Order) -> MercatoError | None:
    """The problem that this state is to whoever wanted to buy; None while it may still be, or is, sold."""
    status = OrderStatus(order.status)
    if status is OrderStatus.ACTION_REQUIRED and order.payment_status == PaymentStatus.DECLINED:
        action = {name: value for name, value in (order.action_required or {}).items() if name != "attempt"}
        return PaymentRequired(
            "the card was declined; send another one", declineCode=action.get("reason"), actionRequired=action
        )
    if status is OrderStatus.REJECTED:
        refusal = order.refusal or {}
        kind = InvalidRequest if refusal.get("code") == "cart_empty" else Conflict
        return kind(
            refusal.get("detail", "the order was rejected"), code=refusal.get("code"), **refusal.get("extra", {})
        )
    if status.is_ended:
        return Conflict(f"the order is {status.value}", code=f"order_{status.value}")
    return None


def _response(found: Found, user: CurrentUser, *, status: int, repeat: bool) -> Response:
    order, lines = found
    view = order_view(order, lines, staff=user.role.is_staff)
    return Response(
        view.model_dump_json(by_alias=True),
        status_code=status,
        media_type="application/json",
        headers=_headers(order.id, repeat),
    )


def _with_order(error: MercatoError, order_id: UUID, *, repeat: bool = False) -> MercatoError:
    error.extra.setdefault("orderId", str(order_id))
    error.headers.update(_headers(order_id, repeat))
    return error


def _headers(order_id: UUID, repeat: bool) -> dict[str, str]:
    headers = {"Location": f"/api/orders/{order_id}"}
    if repeat:
        headers["Idempotent-Replayed"] = "true"
    return headers


def _request_key(request: Request, user_id: UUID, key: str, body: RequestModel) -> RequestKey:
    fingerprint = placing.fingerprint(body.model_dump(mode="json", exclude_unset=True))
    return RequestKey(user_id, request.method, request.scope["path"], key, fingerprint)


def _checkouts(resources: Resources) -> checkouts.Checkouts:
    seconds = resources.settings.workflow_task_seconds
    return checkouts.Checkouts(resources.temporal, task_timeout=timedelta(seconds=seconds))


def _key_ttl(resources: Resources) -> timedelta:
    return timedelta(days=resources.settings.idempotency_ttl_days)
