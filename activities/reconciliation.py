"""Finds orders that nobody looks after and stock past its time, hands them to a run, and writes each break down."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.breaks import BreakBook
from core.db import Sessions, clock
from core.temporal import CUSTOMER_ID, NEEDS_ATTENTION, tell_order
from models.messages import (
    CheckoutInput,
    FulfilmentInput,
    ProcessorNews,
    ReconcileInput,
    ReconcileResult,
    RunOfOrder,
    StaffAction,
)
from models.orders import Order
from models.types import OrderStatus, PaymentStatus, first_uuid7, order_number
from services import breaks, claims, inventory, notifications, orders, unfinished

LIVE = tuple(status for status in OrderStatus if not status.is_ended)
MANY = 10_000  # ids in one read: more than can be under way at once
TOLD_WITHIN = timedelta(minutes=30)  # whoever ordered in the last half hour must have been told that it is sold
MENDED_AT_ONCE = ("checkout_not_started", "run_lost", "cancel_not_carried_out")
SAID_WITHIN = timedelta(minutes=5)
OVERDUE = ("order_open_too_long", "reservation_overdue")


Mend = Callable[[Order], Awaitable[bool]]


@dataclass(frozen=True)
class ReconciliationActivities:
    orders: Sessions
    catalog: Sessions
    carts: Sessions
    notifications: Sessions
    book: BreakBook
    client: Client

    @activity.defn
    async def reconcile(self, request: ReconcileInput) -> ReconcileResult:
        """One pass over what has stood untouched for a while. Every repair is one that can be repeated."""
        started = repaired = overdue = 0
        async with self.orders() as session:
            now = await clock(session)
        async for order in self._unfinished(request):
            mended = await self._see_to(order)
            started += mended == "started"
            repaired += mended == "repaired"
            overdue += not mended and await self._is_overdue(order, request, now)
        released, held_too_long = await self._release_expired(request, now)
        for order in await self._sold_and_half_done(request, now):
            repaired += await self._see_to(order) == "repaired"
        await self._close(now)
        return ReconcileResult(
            started=started,
            repaired=repaired,
            reservations_released=released,
            breaks_open=overdue + held_too_long,
        )

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
                return

    async def _sold_and_half_done(self, request: ReconcileInput, now: datetime) -> list[Order]:
        """Sold and paid, and something after that is missing: their cart is still claimed (they could not order again),
        or they were never told. Those not paid or standing still have been looked at already."""
        async with self.carts() as session:
            holding = await claims.held(session, request.older_than_seconds, MANY)
        untold = await self._untold(request, now)
        async with self.orders() as session:
            sold = await unfinished.of_status(session, [*holding, *untold], (OrderStatus.CONFIRMED,))
        paid = [order for order in sold if order.payment_status == PaymentStatus.CAPTURED]
        return [order for order in paid if not order.needs_attention and order.cancel_requested is None]

    async def _untold(self, request: ReconcileInput, now: datetime) -> list[UUID]:
        first, last = (
            first_uuid7(int(moment.timestamp() * 1000))
            for moment in (now - TOLD_WITHIN, now - timedelta(seconds=request.older_than_seconds))
        )
        async with self.orders() as session:
            sold = await unfinished.sold_between(session, first, last, MANY)
        async with self.notifications() as session:
            return await notifications.without(session, sold, "order.confirmed")

    async def _see_to(self, order: Order) -> str:
        """Hand the order to a run if none looks after it: "started", "repaired", or nothing had to be done."""
        if order.status == OrderStatus.CONFIRMED and order.cancel_requested is not None:
            if not await self._is_running(f"fulfilment-{order.id}"):
                return await self._mend(order, "cancel_not_carried_out", self._cancel_again, "started")
            if order.payment_status in (PaymentStatus.CAPTURED, PaymentStatus.REFUNDED):
                return ""  # else the refund waits for what a checkout has still to take
        running = await self._looked_after(order.id)
        if running is None:
            return await self._mend(order, "checkout_not_started", self._start, "started")
        if not running:
            return await self._mend(order, "run_lost", self._repair, "repaired")
        if order.status == OrderStatus.CONFIRMED and not order.needs_attention:
            # Its run may not know that it is sold: a worker that died had the card, and sold it. Let it look.
            news = ProcessorNews(event_id="reconciliation", type="order.confirmed", intent_id="")
            await tell_order(self.client, order.id, news)
        return ""

    async def _mend(self, order: Order, kind: str, mend: Mend, done: str) -> str:
        if not await mend(order):
            return ""
        says = f"{order.status}, payment {order.payment_status}, and no run of it is open"
        await self.book.mended(kind, str(order.id), order.id, says, f"a run was {done}")
        return done

    async def _is_overdue(self, order: Order, request: ReconcileInput, now: datetime) -> bool:
        """A run looks after it, and yet it has been open for longer than anything may take; nobody was told."""
        age = (now - order.created_at).total_seconds()
        if order.status not in orders.OPEN or order.needs_attention or age < request.overdue_seconds:
            return False
        says = f"open for {age / 60:.0f} minutes, and nothing of it stands still"
        return await self.book.open("order_open_too_long", str(order.id), order, says) is not None

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

    async def _cancel_again(self, order: Order) -> bool:
        """It is sold and was to be cancelled; the run that was at it was lost, or never began."""
        wish = order.cancel_requested or {}
        cancel = StaffAction(actor=wish.get("actor", ""), reason=wish.get("reason", ""))
        run = FulfilmentInput.model_validate({**order.checkout, "cancel": cancel})
        reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE
        return await self._begin(f"fulfilment-{order.id}", run, reuse, "FulfilmentWorkflow")

    async def _repair(self, order: Order) -> bool:
        """Its run was ended from outside: another one undoes it, or brings it to its end if it was confirmed."""
        checkout = CheckoutInput.model_validate(order.checkout).model_copy(update={"repair": True})
        return await self._begin(f"repair-{order.id}", checkout, WorkflowIDReusePolicy.ALLOW_DUPLICATE)

    async def _begin(
        self, workflow_id: str, run: RunOfOrder, reuse: WorkflowIDReusePolicy, workflow: str = "CheckoutWorkflow"
    ) -> bool:
        kind = workflow_id.partition("-")[0].capitalize()
        try:
            await self.client.start_workflow(
                workflow,
                run,
                id=workflow_id,
                task_queue=activity.info().task_queue,
                id_reuse_policy=reuse,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(CUSTOMER_ID, str(run.customer_id)),
                        SearchAttributePair(NEEDS_ATTENTION, False),
                    ]
                ),
                static_summary=f"{kind} of order {order_number(run.order_id)}, begun by reconciliation",
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def _release_expired(self, request: ReconcileInput, now: datetime) -> tuple[int, int]:
        """The backstop of the TTL: stock held for an order that has ended goes back; a live run owns its own.

        How many went back, and how many are held by live orders for longer than anything may take.
        """
        async with self.catalog() as session:
            expired = await inventory.expired(session, MANY)
        async with self.orders() as session:
            live = {order.id: order for order in await unfinished.of_status(session, expired, LIVE)}
        for order_id in (order_id for order_id in expired if order_id not in live):
            async with self.catalog() as session:
                await inventory.release(session, order_id)
            says = "stock held past its time for an order that has ended or never was"
            await self.book.mended("reservation_overdue", str(order_id), order_id, says, "released")
        overdue = 0
        for order in live.values():
            age = (now - order.created_at).total_seconds()
            if order.status in orders.OPEN and not order.needs_attention and age > request.overdue_seconds:
                says = f"stock held past its time; the order is open for {age / 60:.0f} minutes"
                overdue += await self.book.open("reservation_overdue", str(order.id), order, says) is not None
        return len(expired) - len(live), overdue

    async def _close(self, now: datetime) -> None:
        """What was open for too long, and is not any more; and what a pass had mended that died before it said so."""
        async with self.orders() as session:
            half_told = await breaks.open_of(session, MENDED_AT_ONCE)
        for one in half_told:
            if one.last_seen_at < now - SAID_WITHIN:
                await self.book.close(one.kind, one.subject, one.order_id, "looked after since")
        async with self.orders() as session:
            found = {one.order_id: one for one in await breaks.open_of(session, OVERDUE) if one.order_id}
            done = await unfinished.of_status(session, list(found), [s for s in OrderStatus if s not in orders.OPEN])
        for order in done:
            one = found[order.id]
            await self.book.close(one.kind, one.subject, order.id, f"the order is {order.status}")
