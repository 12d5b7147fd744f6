"""Temporal's face of the orders service, and the steps that several services share."""

from dataclasses import dataclass
from uuid import UUID

from temporalio import activity

from activities.recorder import OrderRecorder
from core.db import Sessions
from models.errors import Conflict, InvalidRequest, MercatoError, Unavailable
from models.messages import (
    Attention,
    AuditAction,
    BeginCancel,
    ClaimedLine,
    CloseOrder,
    Confirmation,
    OrderLine,
    OrderRef,
    PreparedOrder,
    PrepareOrder,
    PricedProduct,
    Refusal,
    SoldOrder,
)
from models.orders import Order
from models.types import Money, OrderStatus, PaymentStatus, ReservationState
from services import catalog, claims, inventory, orders, pricing


@dataclass(frozen=True)
class OrderActivities:
    """Each session is opened under the role of the service it belongs to: one change a service, in order."""

    recorder: OrderRecorder
    carts: Sessions
    catalog: Sessions
    rates: pricing.Rates

    @activity.defn
    async def prepare(self, request: PrepareOrder) -> PreparedOrder:
        """Claim the cart's lines for this order, price them from the catalogue, write the order's lines."""
        present = await self._present(request.order_id)
        if present.status not in orders.OPEN or present.committed or request.look_only or present.begun:
            return (
                present  # what was written stands, whatever prices have done since: stock and money may be held for it
            )
        try:
            async with self.carts() as session:
                claimed = await claims.claim(session, request.customer_id, request.order_id, request.cart_version)
            lines = await self._priced(claimed.lines)
            total = await self._write(request, lines)
        except (InvalidRequest, Conflict) as refusal:
            return present.model_copy(update={"refusal": _refusal(refusal)})
        return present.model_copy(update={"lines": lines, "total": total})

    @activity.defn
    async def confirm(self, request: OrderRef) -> Confirmation:
        """Commit the reservation, then confirm the order: the point of no return."""
        async with self.catalog() as session:
            state = await inventory.commit(session, request.order_id)
        if state is not ReservationState.COMMITTED:
            async with self.recorder.sessions() as session:
                order = await orders.get(session, request.order_id)
            return Confirmation(confirmed=False, status=OrderStatus(order.status))
        order = await self.recorder.record(lambda session: orders.confirm(session, request.order_id))
        return Confirmation(confirmed=True, status=OrderStatus(order.status))

    @activity.defn
    async def close(self, request: CloseOrder) -> OrderStatus:
        """Give the cart's lines back and write how the order ended; answers the status it has now."""
        async with self.carts() as session:
            await claims.release_claim(session, request.order_id)
        order = await self.recorder.record(
            lambda session: orders.end(
                session,
                request.order_id,
                request.status,
                refusal=request.refusal,
                actor=request.actor,
                reason=request.reason,
            )
        )
        return OrderStatus(order.status)

    @activity.defn
    async def begin_cancel(self, request: BeginCancel) -> SoldOrder:
        """Write down that a sold order is to be cancelled, and learn where it stands.

        Raises:
            Unavailable: it is not sold yet; whether it will be is being found out by its checkout.
        """
        order = await self.recorder.record(
            lambda session: orders.request_cancel(session, request.order_id, request.actor, request.reason)
        )
        if order.status in orders.OPEN:
            raise Unavailable("The checkout of this order has not come to its end yet.")
        return SoldOrder(
            number=order.number,
            status=OrderStatus(order.status),
            payment_status=PaymentStatus(order.payment_status),
            total=_total_of(order),
            cancellable=order.status == OrderStatus.CONFIRMED,
        )

    @activity.defn
    async def cancel_sold(self, request: CloseOrder) -> OrderStatus:
        """Write the end of a sold order whose money and stock are given back; answers the status it has now."""
        order = await self.recorder.record(
            lambda session: orders.cancel_sold(session, request.order_id, request.reason)
        )
        return OrderStatus(order.status)

    @activity.defn
    async def mark_attention(self, request: Attention) -> None:
        await self.recorder.record(
            lambda session: orders.mark_attention(session, request.order_id, request.step, request.cause)
        )

    @activity.defn
    async def clear_attention(self, request: Attention) -> None:
        await self.recorder.record(lambda session: orders.clear_attention(session, request.order_id))

    @activity.defn
    async def audit(self, request: AuditAction) -> None:
        async with self.recorder.sessions() as session:
            await orders.audit(session, request.order_id, request.actor, request.action, request.reason)

    async def _present(self, order_id: UUID) -> PreparedOrder:
        async with self.recorder.sessions() as session:
            order, lines = await orders.with_lines(session, order_id)
        reservation = None
        if lines:
            async with self.catalog() as session:
                reservation = await inventory.state_of(session, order_id)
        return PreparedOrder(
            number=order.number,
            status=OrderStatus(order.status),
            payment_status=PaymentStatus(order.payment_status),
            lines=lines,
            total=_total_of(order),
            committed=reservation is ReservationState.COMMITTED,
            begun=order.total_amount is not None,
            needs_attention=order.needs_attention,
        )

    async def _priced(self, claimed: list[ClaimedLine]) -> list[OrderLine]:
        async with self.catalog() as session:
            products = await catalog.priced(session, [line.product_id for line in claimed])
        gone = [line.product_id for line in claimed if not _sellable(products.get(line.product_id))]
        if gone:
            raise Conflict("some products are no longer for sale", code="cart_changed", productIds=gone)
        return [_order_line(products[line.product_id], line.quantity) for line in claimed]

    async def _write(self, request: PrepareOrder, lines: list[OrderLine]) -> Money:
        """The order's total; a repeat answers the total that stands."""
        bill = pricing.bill(lines, self.rates)
        if request.expected_total is not None and request.expected_total != bill.total:
            raise Conflict(
                f"the total is {bill.total}, not {request.expected_total}",
                code="price_changed",
                total=bill.total.model_dump(),
            )
        async with self.recorder.sessions() as session:
            return await orders.write_prepared(session, request.order_id, lines, shipping=bill.shipping, tax=bill.tax)


def _total_of(order: Order) -> Money | None:
    return None if order.total_amount is None else Money(amount=order.total_amount, currency=order.currency)


def _sellable(product: PricedProduct | None) -> bool:
    return product is not None and product.active


def _order_line(product: PricedProduct, quantity: int) -> OrderLine:
    return OrderLine(
        product_id=product.product_id,
        sku=product.sku,
        name=product.name,
        quantity=quantity,
        unit_price=product.unit_price,
        line_total=product.unit_price * quantity,
    )


def _refusal(error: MercatoError) -> Refusal:
    return Refusal(code=error.code, detail=error.detail, extra=error.extra)
