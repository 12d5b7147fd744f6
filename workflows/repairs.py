"""What people, and the processor, may do to any run about an order: look, retry, resolve, wake."""

from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.orders import OrderActivities
    from models.messages import AuditAction, OrderOutcome, ProcessorNews, RunOfOrder, StaffAction
    from models.types import OrderStatus, PaymentStatus
    from workflows.steps import Steps


class Repairable:
    """Base of the workflows about an order: knows where it stands, carries out steps that can be mended."""

    def __init__(self, run: RunOfOrder, number: str) -> None:
        self._order_id: UUID = run.order_id
        self._steps = Steps(run)
        self._steps.headline = self._headline
        self._steps.status = lambda: self._status
        self._number = number
        self._status = OrderStatus.PENDING
        self._payment = PaymentStatus.NONE
        self._heard = 0  # how often the processor had something to say

    @workflow.update(
        description="Try the step that stands still again, now (no step given: all of them). "
        'Input: {"actor": "you", "reason": "why", "step": ""}'
    )
    async def retry(self, action: StaffAction) -> OrderOutcome:
        steps = self._steps.retry(action.step)
        await self._audit(action.actor, f"retry {', '.join(steps)}", action.reason)
        return self._outcome()

    @retry.validator
    def _may_retry(self, action: StaffAction) -> None:
        say_who(action.actor, action.reason)
        parked = self._steps.parked
        if not parked:
            raise ApplicationError(f"nothing stands still: {self._sentence()}", type="nothing_to_retry")
        if action.step and action.step not in parked:
            raise ApplicationError(
                f"{action.step} does not stand still; these do: {', '.join(parked)}", type="nothing_to_retry"
            )

    @workflow.update(
        description="You have done by hand what the step should do: it counts as done, nothing checks it. "
        'Input: {"actor": "you", "reason": "what you did", "step": "refund"}'
    )
    async def resolve(self, action: StaffAction) -> OrderOutcome:
        step = action.step or self._steps.resolvable[0]
        await self._audit(action.actor, f"resolve {step}", action.reason)  # written down before it counts
        self._steps.resolve(step)
        return self._outcome()

    @resolve.validator
    def _may_resolve(self, action: StaffAction) -> None:
        say_who(action.actor, action.reason)
        resolvable = self._steps.resolvable
        if action.step in resolvable or (not action.step and len(resolvable) == 1):
            return
        if len(resolvable) > 1 and not action.step:
            raise ApplicationError(f"which step? {', '.join(resolvable)}", type="nothing_to_resolve")
        parked = ", ".join(self._steps.parked) or "nothing"
        can = ", ".join(resolvable) or "none of it"
        raise ApplicationError(
            f"what stands still: {parked}; what can be done by hand: {can}", type="nothing_to_resolve"
        )

    @workflow.signal(
        description="For the API and reconciliation: the processor says that something happened to the payment. "
        "Nothing in it is believed; whoever waits for the processor asks again."
    )
    def processor_news(self, news: ProcessorNews) -> None:  # noqa: ARG002
        self._heard += 1
        self._steps.news()

    @workflow.query(description="Where the order stands, in a sentence.")
    def status(self) -> OrderOutcome:
        return self._outcome()

    async def _audit(self, actor: str, action: str, reason: str) -> None:
        entry = AuditAction(order_id=self._order_id, actor=actor, action=action, reason=reason)
        await self._steps.note(OrderActivities.audit, entry)

    def _outcome(self) -> OrderOutcome:
        payment = PaymentStatus.UNKNOWN if self._steps.unknown else self._payment
        return OrderOutcome(
            order_id=self._order_id, status=self._status, payment_status=payment, sentence=self._sentence()
        )

    def _sentence(self) -> str:
        parked = self._steps.parked
        if parked:
            return "; ".join(f"{step} stands still: {cause}" for step, cause in parked.items())
        return self._headline()

    def _headline(self) -> str:
        return f"Order {self._number} is {self._status.value}, payment {self._payment.value}"


def say_who(actor: str, reason: str) -> None:
    """Refuse whoever does not say who acts and why."""
    if not actor or not reason:
        raise ApplicationError('say who acts and why: {"actor": "you", "reason": "why"}', type="validation_error")
