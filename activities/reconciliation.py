"""Finds orders that nobody looks after and reservations past their time, and hands them to a run."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from core.db import Sessions
from core.temporal import CUSTOMER_ID, NEEDS_ATTENTION
from models.messages import CheckoutInput, ReconcileInput, ReconcileResult
from models.orders import Order
from models.types import OrderStatus, PaymentStatus
from services import claims, inventory, unfinished

LIVE = tuple(status for status in OrderStatus if not status.is_ended)
MANY = 10_000  # ids in one read: more than can be under way at once


@dataclass(frozen=True)
class ReconciliationActivities:
    orders: Sessions
    catalog: Sessions
    carts: Sessions
    client: Client

    @activity.defn
    async def reconcile(self, request: ReconcileInput) -> ReconcileResult:
        """One pass over what has stood untouched for a while. Every repair is one that can be repeated."""
        started = repaired = 0
        async for order in self._unfinished(request):
            running = await self._looked_after(order.id)
            if running is None:
                started += await self._start(order)
            elif not running:
                repaired += await self._repair(order)
        released = await self._release_expired()
        return ReconcileResult(started=started, repaired=repaired, reservations_released=released)

    async def _unfinished(self, request: ReconcileInput) -> AsyncIterator[Order]:
        """All of them, a page at a time: those that wait, and are looked after, must not hide the one that is lost."""
        page: list[Order] = []
        while True:
            async with self.orders() as session:
                behind = page[-1] if page else None
                page = await unfinished.untouched(session, request.older_than_seconds, request.limit, behind=behind)
            for order in page:
                yield order
            if len(page) < request.limit:
                break
        for order in await self._sold_with_a_cart_still_claimed(request):
            yield order

    async def _sold_with_a_cart_still_claimed(self, request: ReconcileInput) -> list[Order]:
        """Their customers could not order again. Those not paid or standing still have been looked at already."""
        async with self.carts() as session:
            holding = await claims.held(session, request.older_than_seconds, MANY)
        async with self.orders() as session:
            sold = await unfinished.of_status(session, holding, (OrderStatus.CONFIRMED,))
        return [order for order in sold if order.payment_status == PaymentStatus.CAPTURED and not order.needs_attention]

    async def _looked_after(self, order_id: UUID) -> bool | None:
        """Whether a checkout or repair of the order runs; None: there has never been one."""
        checkout = await self._is_running(f"checkout-{order_id}")
        if checkout or checkout is None:
            return checkout
        return bool(await self._is_running(f"repair-{order_id}"))

    async def _is_running(self, workflow_id: str) -> bool | None:
        try:
            description = await self.client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        return description.status is WorkflowExecutionStatus.RUNNING

    async def _start(self, order: Order) -> bool:
        """The API died between writing the order and starting its checkout."""
        checkout = CheckoutInput.model_validate(order.checkout)
        return await self._begin(f"checkout-{order.id}", checkout, WorkflowIDReusePolicy.REJECT_DUPLICATE)

    async def _repair(self, order: Order) -> bool:
        """Its run was ended from outside: another one undoes it, or brings it to its end if it was confirmed."""
        checkout = CheckoutInput.model_validate(order.checkout).model_copy(update={"repair": True})
        return await self._begin(f"repair-{order.id}", checkout, WorkflowIDReusePolicy.ALLOW_DUPLICATE)

    async def _begin(self, workflow_id: str, checkout: CheckoutInput, reuse: WorkflowIDReusePolicy) -> bool:
        try:
            await self.client.start_workflow(
                "CheckoutWorkflow",
                checkout,
                id=workflow_id,
                task_queue=activity.info().task_queue,
                id_reuse_policy=reuse,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(CUSTOMER_ID, str(checkout.customer_id)),
                        SearchAttributePair(NEEDS_ATTENTION, False),
                    ]
                ),
                static_summary=f"{'Repair of order' if checkout.repair else 'Order'} {checkout.order_id}",
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def _release_expired(self) -> int:
        """The backstop of the TTL: stock held for an order that has ended goes back; a live run owns its own."""
        async with self.catalog() as session:
            expired = await inventory.expired(session, MANY)
        async with self.orders() as session:
            live = {order.id for order in await unfinished.of_status(session, expired, LIVE)}
        ended = [order_id for order_id in expired if order_id not in live]
        for order_id in ended:
            async with self.catalog.begin() as session:
                await inventory.release(session, order_id)
        return len(ended)
