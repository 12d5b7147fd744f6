"""Finds orders that nobody looks after and reservations past their time, and hands them to a run."""

from dataclasses import dataclass
from uuid import UUID

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from core.db import Sessions
from models.messages import CheckoutInput, ReconcileInput, ReconcileResult
from models.orders import Order
from models.types import OrderStatus
from services import inventory, orders


@dataclass(frozen=True)
class ReconciliationActivities:
    orders: Sessions
    catalog: Sessions
    client: Client

    @activity.defn
    async def reconcile(self, request: ReconcileInput) -> ReconcileResult:
        """One pass over what has stood untouched for a while. Every repair is one that can be repeated."""
        async with self.orders() as session:
            stale = await orders.untouched(session, request.older_than_seconds, request.limit)
        started = repaired = 0
        for order in stale:
            running = await self._looked_after(order.id)
            if running is None:
                started += await self._start(order)
            elif not running:
                repaired += await self._repair(order)
        released = await self._release_expired(request.limit)
        return ReconcileResult(started=started, repaired=repaired, reservations_released=released)

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
                static_summary=f"{'Repair of order' if checkout.repair else 'Order'} {checkout.order_id}",
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def _release_expired(self, limit: int) -> int:
        """The backstop of the TTL: stock held for an order that has ended goes back; a live run owns its own."""
        async with self.catalog() as session:
            expired = await inventory.expired(session, limit)
        async with self.orders() as session:
            ended = [
                order_id
                for order_id in expired
                if (order := await session.get(Order, order_id)) is None or OrderStatus(order.status).is_ended
            ]
        for order_id in ended:
            async with self.catalog.begin() as session:
                await inventory.release(session, order_id)
        return len(ended)
