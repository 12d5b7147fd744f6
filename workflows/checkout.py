"""The checkout, told as a story: prepare, reserve, authorize, confirm, capture, clear the cart, notify.

Until `confirm` everything can be undone; from there it only goes forward. How a step is carried out, retried and
parked is in workflows/steps.py, what people may do about that in workflows/repairs.py, what ends a sale in
workflows/endings.py; here stands what happens, in which order, and what undoes it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities.carts import CartActivities
    from activities.inventory import InventoryActivities
    from activities.notifications import NotificationActivities
    from activities.orders import OrderActivities
    from activities.payments import PaymentActivities
    from models.messages import (
        Authorization,
        AuthorizePayment,
        CheckoutInput,
        CheckoutResult,
        CloseOrder,
        OrderOutcome,
        OrderRef,
        PreparedOrder,
        PrepareOrder,
        QueueConfirmation,
        Refusal,
        ReserveStock,
        StaffAction,
        UsePaymentMethod,
        Voiding,
    )
    from models.types import Money, OrderStatus, PaymentStatus, ReservationState, order_number
    from workflows import options
    from workflows.endings import NotSold, cause_of, to_the_end
    from workflows.repairs import Repairable, say_who


@workflow.defn
class CheckoutWorkflow(Repairable):
    """One order from the cart to the confirmation. Started by the API as `checkout-{orderId}`."""

    @workflow.init
    def __init__(self, checkout: CheckoutInput) -> None:
        super().__init__(checkout, order_number(checkout.order_id))
        self._input = checkout
        self._steps.prolonged = self._set_deadline
        self._steps.start_afresh = self._start_afresh
        self._order = PreparedOrder(number=self._number, status=OrderStatus.PENDING)
        self._deadline: datetime | None = None
        self._undo: list[Callable[[], Awaitable[None]]] = []
        self._ending = NotSold(OrderStatus.CANCELLED)
        self._rolls_back = False
        self._given_back = False  # what a lost run sold, by the cancel of a sold order
        self._cancel: NotSold | None = None
        self._method = checkout.payment_method_id
        self._card: UsePaymentMethod | None = None
        self._card_key = self._next_card_key = checkout.payment_request
        self._cards_answered = 0
        self._cards_sent = 0
        self._waits_for_card = False
        self._answerable = False
        self._past_return = False
        self._closed = False

    @workflow.run
    async def run(self, checkout: CheckoutInput) -> CheckoutResult:
        """Sell, then finish; or undo, then close. Either way the order ends or somebody is told."""
        if await self._sold():
            await to_the_end(self._finish())
        self._answerable = self._closed = True
        self._steps.describe(self._sentence(), status=self._status, total=self._order.total)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return CheckoutResult(
            order_id=checkout.order_id, status=self._status, payment_status=self._payment, total=self._order.total
        )

    # --- the story -------------------------------------------------------------------------------------------------

    async def _sold(self) -> bool:
        """Whether the order was sold; if not, everything done for it has been undone."""
        # A run that was lost may have come further than this one: until `prepare` tells, all of it may need undoing.
        self._undo = [self._close, self._void, self._release]
        try:
            await self._prepare()
            if self._past_return or self._status.is_ended:
                return self._past_return  # a rerun: only forward, or nothing at all
            await self._reserve()
            if not self._past_return:
                await self._authorize()
            self._past_return = True
            await to_the_end(self._confirm())
            return True
        except NotSold as ending:
            self._ending = ending
        except (asyncio.CancelledError, FailureError) as broken:
            self._ending = NotSold(OrderStatus.CANCELLED, reason=cause_of(broken))
        await to_the_end(self._roll_back())
        return self._past_return

    async def _prepare(self) -> None:
        """Claim the cart's lines, price them, write the order's lines; learn where the order stands."""
        message = self._preparation(look_only=self._input.repair or self._input.ending is not None)
        done, order = await self._steps.run_until("prepare", OrderActivities.prepare, message, stop=self._is_cancelled)
        if done:
            self._learn(order)
            if self._past_return or self._status.is_ended:
                return  # also when a cancel has come meanwhile: it is too late
        self._stop_if_cancelled()
        if self._input.ending is not None:
            raise NotSold.of(self._input.ending)
        if self._input.repair:
            raise NotSold(OrderStatus.CANCELLED, reason="its checkout was ended from outside")
        if not self._order.begun:
            self._undo = [self._close]
        if self._order.refusal:
            raise NotSold(OrderStatus.REJECTED, self._order.refusal)

    def _preparation(self, *, look_only: bool) -> PrepareOrder:
        return PrepareOrder(
            order_id=self._input.order_id,
            customer_id=self._input.customer_id,
            expected_total=self._input.expected_total,
            cart_version=self._input.cart_version,
            look_only=look_only,
        )

    def _learn(self, order: PreparedOrder) -> None:
        """Where the order stands, as its services tell."""
        self._order, self._status, self._payment = order, order.status, order.payment_status
        sold = order.committed and not order.status.is_ended
        self._past_return = sold or order.status is OrderStatus.CONFIRMED

    async def _reserve(self) -> None:
        """Hold every line or none."""
        self._will_undo(self._release)
        message = ReserveStock(
            order_id=self._input.order_id,
            quantities={line.product_id: line.quantity for line in self._order.lines},
            ttl_seconds=self._input.reservation_ttl_seconds,
        )
        reservation = await self._cancellable("reserve", InventoryActivities.reserve, message)
        if reservation.shortages:
            lines = [
                {"productId": short.product_id, "requested": short.requested, "available": short.available}
                for short in reservation.shortages
            ]
            raise NotSold(
                OrderStatus.REJECTED,
                Refusal(code="out_of_stock", detail="not everything is in stock", extra={"lines": lines}),
            )
        if reservation.state is ReservationState.RELEASED:
            raise NotSold(OrderStatus.EXPIRED, reason="the reservation had been released")
        self._past_return = reservation.state is ReservationState.COMMITTED
        self._set_deadline(timedelta(seconds=reservation.seconds_left or 0))
        self._steps.holds_stock = True

    async def _authorize(self) -> None:
        """Hold the money. A card may be declined, and another one come; its bank may want to see the shopper first."""
        self._will_undo(self._void)
        while True:
            authorization = await self._ask_for_the_money()
            if authorization.status is PaymentStatus.AUTHORIZED:
                self._status, self._waits_for_card = OrderStatus.PENDING, False
                return
            if authorization.action_url is None:
                await self._another_card(authorization.decline_code or "card_declined")
                if self._past_return:
                    return
            else:
                await self._authentication()

    async def _ask_for_the_money(self) -> Authorization:
        """Try the card; if it was tried before, learn what came of it."""
        message = AuthorizePayment(
            order_id=self._input.order_id,
            request_key=self._card_key,
            payment_method_id=self._method,
            amount=self._total,
            deadline=self._deadline,
        )
        authorization: Authorization = await self._cancellable("authorize", PaymentActivities.authorize, message)
        self._payment = authorization.status
        return authorization

    async def _another_card(self, declined: str) -> None:
        """Wait for a card, a cancel or the deadline, whichever comes first."""
        self._describe_wait(
            f"Waiting for another card until {self._until}, declined: {declined}.\n\n"
            "The shopper can send one, or staff by the update `use_payment_method`; `cancel` gives everything back."
        )
        while self._card is None:
            heard = self._heard
            if not await self._shopper_acts(self._time_left(), "the reservation ends", or_news_since=heard):
                self._waits_for_card = False
                raise NotSold(OrderStatus.EXPIRED, reason="no other card came in time")
            if self._card is None:
                await self._look_whether_it_is_sold()
                if self._past_return:
                    return
        self._take_card()

    async def _look_whether_it_is_sold(self) -> None:
        """By a card that this run has never heard of: the worker that had it sold the order, and died before it could
        say so, and with it the update that had brought the card."""
        look = self._preparation(look_only=True)
        standing = await self._cancellable("prepare", OrderActivities.prepare, look)
        if standing.committed or standing.status is OrderStatus.CONFIRMED:
            self._waits_for_card = False
            self._learn(standing)

    async def _authentication(self) -> None:
        """Wait until the shopper has been seen by the card's bank, sends another card, or is too late."""
        if self._time_left() < options.SHORTEST_PAUSE:
            self._waits_for_card = False
            raise NotSold(OrderStatus.EXPIRED, reason="the payment was not authenticated in time")
        self._describe_wait(
            f"Waiting until {self._until} for the shopper to authenticate the payment at the card's bank.\n\n"
            "It is asked about now and then, and when the processor says that there is news. Another card can be sent,"
            " by staff with the update `use_payment_method`; `cancel` gives everything back."
        )
        heard = self._heard
        pause = min(self._time_left(), options.LOOK_PAUSE)
        await self._shopper_acts(pause, "ask whether it is authenticated", or_news_since=heard)
        self._take_card()

    def _describe_wait(self, sentence: str) -> None:
        self._status = OrderStatus.ACTION_REQUIRED
        self._waits_for_card = self._answerable = True
        self._cards_answered = self._cards_sent - (self._card is not None)  # that one came while we asked
        self._steps.describe(sentence, status=self._status, total=self._order.total)

    async def _shopper_acts(self, within: timedelta, summary: str, *, or_news_since: int) -> bool:
        """Wait for a card, a cancel, or more news than were heard before. False: none came within the time."""
        try:
            await workflow.wait_condition(
                lambda: self._card is not None or self._cancel is not None or self._heard > or_news_since,
                timeout=max(within, timedelta(0)),
                timeout_summary=summary,
            )
        except TimeoutError:
            return False
        self._stop_if_cancelled()
        return True

    def _take_card(self) -> None:
        """If another card has come, it is the one that is tried from now on."""
        if self._card is None:
            return
        self._method, self._card_key = self._card.payment_method_id, self._next_card_key
        self._card, self._waits_for_card, self._answerable = None, False, False
        self._steps.describe("Trying another card", status=OrderStatus.PENDING)

    async def _confirm(self) -> None:
        """Commit the reservation: the point of no return. It may refuse when the stock was released meanwhile."""
        self._steps.holds_stock = False
        confirmation = await self._steps.run("confirm", OrderActivities.confirm, self._ref)
        if not confirmation.confirmed:
            self._past_return = False
            raise NotSold(OrderStatus.EXPIRED, reason="the reservation had been released")
        self._status = OrderStatus.CONFIRMED
        self._answerable = True

    async def _finish(self) -> None:
        """Sold: from here forward only. The three do not wait for one another, so that none holds up the rest."""
        if self._status is not OrderStatus.CONFIRMED:
            await self._confirm()
        self._answerable = True
        await asyncio.gather(self._capture(), self._clear_cart(), self._notify())
        await self._steps.settle_attention(marked_before=self._order.needs_attention)

    async def _capture(self) -> None:
        capture = await self._steps.run("capture", PaymentActivities.capture, self._ref)
        self._payment = capture.status

    async def _clear_cart(self) -> None:
        await self._steps.run("clear_cart", CartActivities.clear, self._ref, by_hand=True)

    async def _notify(self) -> None:
        message = QueueConfirmation(
            order_id=self._input.order_id,
            customer_id=self._input.customer_id,
            number=self._order.number,
            total=self._total,
        )
        await self._steps.run("notify", NotificationActivities.queue_confirmation, message, by_hand=True)

    # --- undo: noted before its step; each tolerates that its step never happened -------------------------------------

    async def _roll_back(self) -> None:
        self._steps.holds_stock = self._waits_for_card = False
        self._rolls_back = True
        for undo in self._undo_in_order():
            await undo()
            if self._past_return or self._given_back:
                self._rolls_back = False
                return

    def _undo_in_order(self) -> list[Callable[[], Awaitable[None]]]:
        """The reservation first: it alone knows whether the order was sold.

        Perhaps by a worker that has died since, in a task whose card (an update) is written down nowhere: this run has
        never heard of it. Once the stock is released, such a sale is refused; before, its money could not be voided.
        """
        if not workflow.patched("stock-before-money"):
            return self._undo[::-1]  # histories that were begun before
        return [undo for undo in (self._release, self._void, self._close) if undo in self._undo]

    async def _void(self) -> None:
        nothing = Voiding(status=PaymentStatus.NONE)
        voiding = await self._steps.run("void", PaymentActivities.void, self._ref, by_hand=nothing)
        if voiding.status is PaymentStatus.VOIDED or self._payment in (PaymentStatus.AUTHORIZED, PaymentStatus.UNKNOWN):
            self._payment = PaymentStatus.VOIDED

    async def _release(self) -> None:
        """After a lost run it comes first: the reservation knows whether that run had sold. Then nothing is undone."""
        released = ReservationState.RELEASED
        state = await self._steps.run("release", InventoryActivities.release, self._ref, by_hand=released)
        if state is ReservationState.RESTOCKED and workflow.patched("sold-and-cancelled"):
            self._given_back = True
            self._ending = NotSold(OrderStatus.CANCELLED, reason="it was sold, and cancelled after that")
        if state is ReservationState.COMMITTED or self._given_back:
            look = self._preparation(look_only=True)
            self._learn(await self._steps.run("prepare", OrderActivities.prepare, look))

    async def _close(self) -> None:
        ending = self._ending
        message = CloseOrder(
            order_id=self._input.order_id,
            status=ending.status,
            refusal=ending.refusal,
            actor=ending.actor,
            reason=ending.reason,
        )
        self._status = await self._steps.run("close", OrderActivities.close, message)

    # --- what people may do ----------------------------------------------------------------------------------------

    @workflow.update(description="For the API: waits for the outcome and answers it. Changes nothing. Input: none.")
    async def placed(self) -> OrderOutcome:
        await workflow.wait_condition(lambda: self._answerable)
        return self._outcome()

    @workflow.update(
        description="Cancel the order and give everything back; refused once it is confirmed. "
        'Input: {"actor": "you", "reason": "why"}'
    )
    async def cancel(self, action: StaffAction) -> OrderOutcome:
        self._cancel = NotSold(OrderStatus.CANCELLED, actor=action.actor, reason=action.reason)
        await workflow.wait_condition(lambda: self._closed)
        return self._outcome()

    @cancel.validator
    def _may_cancel(self, action: StaffAction) -> None:
        say_who(action.actor, action.reason)
        if self._past_return or self._closed:
            raise ApplicationError(
                f"the order is {self._status.value}, this run cannot cancel it any more", type="not_cancellable"
            )
        if self._cancel is not None:  # a flood of cancels leaves one in the history
            raise ApplicationError("the order is being cancelled already", type="already_cancelling")

    @workflow.signal(
        description="For the API: as `cancel`, when nobody takes that in time. Ignored once the order is confirmed. "
        'Input: {"actor": "you", "reason": "why"}'
    )
    def cancel_soon(self, action: StaffAction) -> None:
        if not (self._past_return or self._closed or self._cancel):
            self._cancel = NotSold(OrderStatus.CANCELLED, actor=action.actor, reason=action.reason)

    @workflow.update(
        description="Try another card for the same reservation. "
        'Input: {"payment_method_id": "pm_…", "actor": "you", "reason": "why"}'
    )
    async def use_payment_method(self, card: UsePaymentMethod) -> OrderOutcome:
        info = workflow.current_update_info()
        self._card, self._next_card_key = card, info.id if info else "card"
        self._cards_sent += 1
        mine = self._cards_sent
        if card.reason or (card.actor and card.actor != str(self._input.customer_id)):
            await self._audit(card.actor, "use_payment_method", card.reason)
        await workflow.wait_condition(
            lambda: self._closed or self._status is OrderStatus.CONFIRMED or self._cards_answered >= mine
        )
        return self._outcome()

    @use_payment_method.validator
    def _may_use_payment_method(self, card: UsePaymentMethod) -> None:
        if not card.payment_method_id:
            raise ApplicationError('which card? {"payment_method_id": "pm_…"}', type="validation_error")
        if not self._waits_for_card or self._card is not None:
            raise ApplicationError(f"the order is {self._status.value}, it waits for no card", type="not_payable")
        if self._cards_sent >= options.MOST_CARDS:
            raise ApplicationError("too many cards were tried for this order", type="not_payable")

    # --- small print -----------------------------------------------------------------------------------------------

    @property
    def _ref(self) -> OrderRef:
        return OrderRef(order_id=self._input.order_id)

    @property
    def _total(self) -> Money:
        assert self._order.total is not None, "prepare answers a total or a refusal"
        return self._order.total

    async def _cancellable(self, name: str, activity: Any, message: Any) -> Any:
        """A step that a cancel need not wait for: what it may still do in the background, undo makes good."""
        done, result = await self._steps.run_until(name, activity, message, stop=self._is_cancelled)
        self._stop_if_cancelled()
        assert done
        return result

    def _will_undo(self, undo: Callable[[], Awaitable[None]]) -> None:
        if undo not in self._undo:
            self._undo.append(undo)

    def _is_cancelled(self) -> bool:
        return self._cancel is not None

    def _stop_if_cancelled(self) -> None:
        if self._cancel is not None:
            raise self._cancel

    def _set_deadline(self, left: timedelta) -> None:
        """The reservation lives for `left` from now, and with it whatever the shopper has to do."""
        self._deadline = workflow.now() + left

    def _time_left(self) -> timedelta:
        return (self._deadline or workflow.now()) - workflow.now()

    @property
    def _until(self) -> str:
        return f"{self._deadline or workflow.now():%H:%M} UTC"

    def _start_afresh(self) -> None:
        """Go on in a new history: a rerun finds out by itself how far this run has come (see `prepare`)."""
        ending = self._ending if self._rolls_back else None if self._past_return else self._cancel
        workflow.continue_as_new(
            self._input.model_copy(
                update={
                    "payment_method_id": self._method,
                    "payment_request": self._card_key,
                    "ending": ending.message() if ending is not None else None,
                }
            )
        )

    def _sentence(self) -> str:
        ending = self._ending
        why = ending.refusal.detail if ending.refusal else ending.reason
        if self._status.is_ended and why and not self._steps.parked:
            return f"Order {self._number} is {self._status.value}: {why}"
        return super()._sentence()
