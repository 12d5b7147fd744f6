"""How a step is carried out: fast first, then in rounds, never given up.

A step runs first as a local activity with a short budget. When retryable failures have used that up, the same step
is scheduled as a regular activity, where staff see its attempts in the UI and can pause or reset it. When a round of
those is used up too, the order is marked `needsAttention` and the step waits for staff (`retry`, `resolve`), for news
from the processor, or for the next round, which starts by itself, so that an outage heals without hands.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.inventory import InventoryActivities
    from activities.orders import OrderActivities
    from models.messages import Attention, AuditAction, ProlongReservation, RunOfOrder
    from models.types import Money, OrderStatus
    from workflows import options
    from workflows.endings import cause_of, type_of

ORDER_STATUS = SearchAttributeKey.for_keyword("OrderStatus")
CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")
NEEDS_ATTENTION = SearchAttributeKey.for_bool("NeedsAttention")
FAILURE_STEP = SearchAttributeKey.for_keyword("FailureStep")
ORDER_TOTAL = SearchAttributeKey.for_int("OrderTotal")

UNDO = ("void", "release", "close", "refund", "restock", "cancel_sold")
UNKNOWN_OUTCOME = ("payment_unknown", "processor_mismatch")
ASK_THE_PROCESSOR = ("authorize", "capture", "void", "refund")


class Steps:
    """Carries out the steps of one run and knows which of them stand still, each with a decision of its own."""

    def __init__(self, run: RunOfOrder) -> None:
        self._input = run
        self._retry_asked: set[str] = set()
        self._by_hand: dict[str, Any] = {}  # step -> its result once staff have done it; only while it stands still
        self._done_by_hand: set[str] = set()
        self._mark_left = False  # the mark on the order could not be taken back yet
        self.parked: dict[str, str] = {}  # step -> cause
        self.unknown = False  # the processor does not say whether it holds the money
        self.headline: Callable[[], str] = lambda: "The order is not ready"  # for whoever reads why a step stands still
        self.status: Callable[[], OrderStatus] = lambda: OrderStatus.PENDING  # for lists of what stands still
        self.holds_stock = False  # then a step that stands still prolongs the reservation
        self.prolonged: Callable[[timedelta], None] = lambda _: None  # told how long the reservation lives now
        self.start_afresh: Callable[[], None] = lambda: None  # called when the history has become long; may not return

    async def run(self, name: str, activity: Any, message: Any, *, by_hand: Any = None) -> Any:
        """The step's result, however long it takes: it never gives up, not even when a service refuses.

        `by_hand`: the result that it has when staff say that they have done it themselves (None: nobody can).
        """
        _, result = await self._carry_out(
            name, activity, message, stop=lambda: False, may_refuse=False, by_hand=by_hand
        )
        return result

    async def run_until(self, name: str, activity: Any, message: Any, *, stop: Callable[[], bool]) -> tuple[bool, Any]:
        """As `run`, but gives up waiting once `stop()` holds: (False, None) then. The attempt may still take effect.

        Raises:
            FailureError: a service refused for good (a non-retryable error).
        """
        return await self._carry_out(name, activity, message, stop=stop, may_refuse=True, by_hand=None)

    async def _carry_out(
        self, name: str, activity: Any, message: Any, *, stop: Callable[[], bool], may_refuse: bool, by_hand: Any
    ) -> tuple[bool, Any]:
        if self._input.fast_path:
            try:
                return True, await self._fast(name, activity, message)
            except FailureError as failure:
                if is_cancelled_exception(failure) or (may_refuse and _refused(failure)):
                    raise
        while not stop():
            try:
                done, result = await self._round(name, activity, message, stop)
            except ActivityError as failure:
                if is_cancelled_exception(failure) or (may_refuse and _refused(failure)):
                    raise
                await self._park(name, failure, stop, by_hand)
                if name in self._done_by_hand:
                    await self._unpark(name)
                    return True, by_hand
                continue
            await self._unpark(name)
            return done, result
        await self._unpark(name)
        return False, None

    async def note(self, activity: Any, message: Any) -> None:
        """Something worth writing down, in its own time: retried until it is written."""
        summary = f"{message.actor}: {message.action}" if isinstance(message, AuditAction) else None
        await workflow.execute_activity_method(
            activity,
            message,
            summary=summary,
            start_to_close_timeout=options.ATTEMPT,
            retry_policy=options.ROUND_RETRY,
        )

    def retry(self, step: str) -> list[str]:
        """Let `step` (empty: every step that stands still) try again now; returns their names."""
        steps = [step] if step else list(self.parked)
        self._retry_asked.update(steps)
        return steps

    @property
    def resolvable(self) -> list[str]:
        """The steps that stand still and that a person may have done instead."""
        return [step for step in self.parked if step in self._by_hand]

    def resolve(self, step: str) -> None:
        """A person has done `step`: it counts as done."""
        if step in self._by_hand:
            self._done_by_hand.add(step)

    def news(self) -> None:
        """The processor has something to say: whoever stands still because of it asks again, now."""
        self._retry_asked.update(step for step in self.parked if step in ASK_THE_PROCESSOR)

    def describe(self, sentence: str, *, status: OrderStatus, total: Money | None = None) -> None:
        """What staff read at the top of the order's page and filter lists by."""
        workflow.set_current_details(sentence)
        updates: list[Any] = [ORDER_STATUS.value_set(status.value)]
        if total is not None:
            updates.append(ORDER_TOTAL.value_set(total.amount))
        workflow.upsert_search_attributes(updates)

    async def _fast(self, name: str, activity: Any, message: Any) -> Any:
        budget = timedelta(seconds=self._input.fast_step_seconds)
        return await workflow.execute_local_activity_method(
            activity,
            message,
            activity_id=f"{name}-fast",
            schedule_to_close_timeout=budget,
            start_to_close_timeout=budget,
            retry_policy=options.FAST_RETRY,
        )

    async def _round(self, name: str, activity: Any, message: Any, stop: Callable[[], bool]) -> tuple[bool, Any]:
        undo = name in UNDO
        handle = workflow.start_activity_method(
            activity,
            message,
            summary=name,
            schedule_to_close_timeout=None if undo else timedelta(seconds=self._input.round_seconds),
            start_to_close_timeout=timedelta(seconds=self._input.attempt_seconds),
            retry_policy=options.UNDO_RETRY if undo else options.ROUND_RETRY,
        )
        await workflow.wait_condition(lambda: handle.done() or stop())
        if handle.done():
            return True, handle.result()
        handle.cancel()
        handle.add_done_callback(_look_away)
        return False, None

    async def _park(self, name: str, failure: ActivityError, stop: Callable[[], bool], by_hand: Any) -> None:
        """Say that `name` stands still, and wait for staff, for news, or for the next round."""
        if workflow.info().get_current_history_length() >= options.LONG_HISTORY:
            self.start_afresh()
        cause = cause_of(failure)
        self.parked[name] = cause
        self.unknown = type_of(failure) in UNKNOWN_OUTCOME
        if by_hand is not None:
            self._by_hand[name] = by_hand
        self._retry_asked.discard(name)
        next_round = workflow.now() + timedelta(seconds=self._input.round_pause_seconds)
        workflow.set_current_details(
            f"{self.headline()}.\n\n**{name} stands still:** {cause.rstrip('.')}.\n\n"
            f"It tries again by itself at {next_round:%H:%M:%S} UTC; the update `retry` does at once."
            + (" Done by hand? Say so with `resolve`." if by_hand is not None else "")
        )
        status = ORDER_STATUS.value_set(self.status().value)
        workflow.upsert_search_attributes([NEEDS_ATTENTION.value_set(True), FAILURE_STEP.value_set(name), status])
        await self._try_note(OrderActivities.mark_attention, self._attention(name, cause))
        if self.holds_stock:
            await self._prolong()
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: name in self._retry_asked or name in self._done_by_hand or stop(),
                timeout=timedelta(seconds=self._input.round_pause_seconds),
                timeout_summary=f"next round of {name}",
            )
        self._retry_asked.discard(name)

    async def _prolong(self) -> None:
        order, ttl = self._input.order_id, self._input.reservation_ttl_seconds
        message = ProlongReservation(order_id=order, ttl_seconds=ttl)
        _, reservation = await self._try_note(InventoryActivities.prolong, message)
        if reservation is not None and reservation.seconds_left is not None:
            self.prolonged(timedelta(seconds=reservation.seconds_left))

    async def _unpark(self, name: str) -> None:
        self._by_hand.pop(name, None)
        self.unknown = False
        if self.parked.pop(name, None) is None:
            return
        if self.parked:
            step, cause = next(iter(self.parked.items()))
            workflow.upsert_search_attributes([FAILURE_STEP.value_set(step)])
            await self._try_note(OrderActivities.mark_attention, self._attention(step, cause))
            return
        workflow.set_current_details(f"{self.headline()}; {name} works again")
        workflow.upsert_search_attributes([NEEDS_ATTENTION.value_set(False), FAILURE_STEP.value_unset()])
        # A mark that cannot be taken back now must not hold up what comes next: somebody's money may.
        cleared, _ = await self._try_note(OrderActivities.clear_attention, self._attention())
        self._mark_left = not cleared

    async def settle_attention(self, *, marked_before: bool = False) -> None:
        """At the end of a run: nothing stands still any more. `marked_before`: by a run that was lost."""
        if marked_before or self._mark_left:
            await self.note(OrderActivities.clear_attention, self._attention())
            self._mark_left = False

    def _attention(self, step: str = "", cause: str = "") -> Attention:
        return Attention(order_id=self._input.order_id, step=step, cause=cause)

    async def _try_note(self, activity: Any, message: Any) -> tuple[bool, Any]:
        """Written down if it can be, soon: the search attribute says it anyway. Whether it was, and the answer."""
        try:
            return True, await workflow.execute_activity_method(
                activity,
                message,
                schedule_to_close_timeout=options.NOTE_BUDGET,
                start_to_close_timeout=options.ATTEMPT,
                retry_policy=options.NOTE_RETRY,
            )
        except ActivityError as failure:
            if is_cancelled_exception(failure):
                raise
            workflow.logger.warning("could not write a note: %s", cause_of(failure))
            return False, None


def _look_away(attempt: asyncio.Task[Any]) -> None:
    """Nobody waits for this attempt any more; asyncio would complain of an exception that nobody has looked at."""
    if not attempt.cancelled():
        attempt.exception()


def _refused(failure: BaseException) -> bool:
    """Whether a service refused for good, as against not having been able to answer."""
    cause = failure if isinstance(failure, ApplicationError) else failure.__cause__
    return isinstance(cause, ApplicationError) and cause.non_retryable
