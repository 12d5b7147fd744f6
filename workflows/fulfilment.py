"""What happens to an order after the sale. So far: a cancel, which gives everything back.

Started by the first thing that happens, so that an ordinary checkout pays nothing for it. It only goes forward: a sold
order that is to be cancelled is cancelled, however long the processor takes. Every step can be run again: a run that
was lost is started again by reconciliation, from what `begin_cancel` has written down.
"""

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.carts import CartActivities
    from activities.inventory import InventoryActivities
    from activities.orders import OrderActivities
    from activities.payments import PaymentActivities
    from models.messages import (
        BeginCancel,
        CheckoutResult,
        CloseOrder,
        FulfilmentInput,
        OrderOutcome,
        OrderRef,
        Refund,
        SoldOrder,
        StaffAction,
    )
    from models.types import OrderStatus, PaymentStatus, ReservationState, order_number
    from workflows.endings import to_the_end
    from workflows.repairs import Repairable, say_who


@workflow.defn
class FulfilmentWorkflow(Repairable):
    """One sold order. Started as `fulfilment-{orderId}`, together with the update that says what is to happen."""

    @workflow.init
    def __init__(self, order: FulfilmentInput) -> None:
        super().__init__(order, order_number(order.order_id))
        self._input = order
        self._status = OrderStatus.CONFIRMED
        self._cancel: StaffAction | None = order.cancel
        self._closed = False
        self._steps.start_afresh = self._start_afresh

    @workflow.run
    async def run(self, order: FulfilmentInput) -> CheckoutResult:
        """Wait to be told what to do, and carry it out whatever arrives meanwhile."""
        await workflow.wait_condition(lambda: self._cancel is not None)
        assert self._cancel is not None
        sold = await to_the_end(self._give_back(self._cancel))
        self._closed = True
        self._steps.describe(self._sentence(), status=self._status, total=sold.total)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return CheckoutResult(
            order_id=order.order_id, status=self._status, payment_status=self._payment, total=sold.total
        )

    async def _give_back(self, cancel: StaffAction) -> SoldOrder:
        """The money first: stock that is back on the shelf a little later harms nobody."""
        message = BeginCancel(order_id=self._order_id, actor=cancel.actor, reason=cancel.reason)
        sold: SoldOrder = await self._steps.run("begin_cancel", OrderActivities.begin_cancel, message)
        self._status, self._payment = sold.status, sold.payment_status
        if not sold.cancellable:
            return sold
        await self._refund()
        await self._by_hand("restock", InventoryActivities.restock, ReservationState.RESTOCKED)
        await self._by_hand("clear_cart", CartActivities.clear, True)  # should the checkout not have come so far
        closing = CloseOrder(order_id=self._order_id, status=OrderStatus.CANCELLED, reason=cancel.reason)
        self._status = await self._steps.run("cancel_sold", OrderActivities.cancel_sold, closing)
        await self._steps.settle_attention()
        return sold

    async def _refund(self) -> None:
        refund: Refund = await self._by_hand("refund", PaymentActivities.refund, Refund(status=self._payment))
        self._payment = refund.status

    async def _by_hand(self, name: str, activity: Any, result: Any) -> Any:
        """A step that staff may have done themselves."""
        return await self._steps.run(name, activity, OrderRef(order_id=self._order_id), by_hand=result)

    @workflow.update(
        description='Cancel the sold order: its money is refunded and its stock put back. Input: {"actor": "you", '
        '"reason": "why"}'
    )
    async def cancel(self, action: StaffAction) -> OrderOutcome:
        self._cancel = self._cancel or action
        await workflow.wait_condition(lambda: self._closed)
        return self._outcome()

    @cancel.validator
    def _may_cancel(self, action: StaffAction) -> None:
        say_who(action.actor, action.reason)
        if self._cancel is not None:
            raise ApplicationError("the order is being cancelled already", type="already_cancelling")

    @workflow.signal(
        description='For the API: as `cancel`, when nobody takes that in time. Input: {"actor": "you", "reason": "why"}'
    )
    def cancel_soon(self, action: StaffAction) -> None:
        self._cancel = self._cancel or action

    def _start_afresh(self) -> None:
        workflow.continue_as_new(self._input.model_copy(update={"cancel": self._cancel}))

    def _headline(self) -> str:
        if self._payment is PaymentStatus.REFUNDED and not self._closed:
            return f"Order {self._number} is refunded and being cancelled"
        return super()._headline()
