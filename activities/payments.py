"""Temporal's face of the payments service."""

from dataclasses import dataclass

from temporalio import activity

from activities.recorder import OrderRecorder
from core.db import Sessions
from models.errors import Conflict
from models.messages import Authorization, AuthorizePayment, Capture, OrderRef, Refund, Voiding
from models.types import OrderStatus, PaymentStatus
from services import orders, payments, refunds
from services.intents import PaymentUnknown
from services.processor import Processor

FIRST_REQUEST = "place"


@dataclass(frozen=True)
class PaymentActivities:
    """No transaction is open while the processor is asked."""

    sessions: Sessions
    processor: Processor
    recorder: OrderRecorder

    @activity.defn
    async def authorize(self, request: AuthorizePayment) -> Authorization:
        """Hold the money with this card, then tell the customer what the processor said.

        Raises:
            PaymentUnknown: it did not say; the order's payment is `unknown` until it does.
        """
        attempt = await self._attempt(request)
        try:
            authorization = await payments.authorize(
                self.sessions,
                self.processor,
                order_id=request.order_id,
                attempt=attempt,
                amount=request.amount,
                payment_method_id=request.payment_method_id,
            )
        except PaymentUnknown:
            await self.recorder.record(
                lambda session: orders.record_payment_unknown(session, request.order_id, attempt)
            )
            raise
        await self._tell(request, authorization)
        return authorization

    @activity.defn
    async def capture(self, request: OrderRef) -> Capture:
        """Take the money that is held. Of a sold order that has been cancelled meanwhile there is nothing to take."""
        try:
            capture = await payments.capture(self.sessions, self.processor, order_id=request.order_id)
        except Conflict:
            async with self.recorder.sessions() as session:
                order = await orders.get(session, request.order_id)
            if order.status != OrderStatus.CANCELLED:
                raise
            return Capture(status=PaymentStatus.VOIDED)
        amount = capture.amount
        if capture.status is PaymentStatus.CAPTURED and amount is not None:
            await self.recorder.record(lambda session: orders.record_captured(session, request.order_id, amount))
        return capture

    @activity.defn
    async def void(self, request: OrderRef) -> Voiding:
        """Give back the money that is held; an authorization that comes later is refused."""
        voiding = await payments.void(self.sessions, self.processor, order_id=request.order_id)
        if voiding.status is PaymentStatus.VOIDED:
            await self.recorder.record(lambda session: orders.record_voided(session, request.order_id))
        return voiding

    @activity.defn
    async def refund(self, request: OrderRef) -> Refund:
        """Give back everything that was taken."""
        refund = await refunds.refund(self.sessions, self.processor, order_id=request.order_id)
        amount = refund.amount
        if refund.status is PaymentStatus.REFUNDED and amount is not None:
            await self.recorder.record(lambda session: orders.record_refunded(session, request.order_id, amount))
        return refund

    async def _attempt(self, request: AuthorizePayment) -> int:
        if request.request_key == FIRST_REQUEST:
            return 1
        async with self.sessions.begin() as session:
            return await payments.next_attempt(
                session, request.order_id, request.request_key, request.payment_method_id
            )

    async def _tell(self, request: AuthorizePayment, authorization: Authorization) -> None:
        if authorization.status is PaymentStatus.AUTHORIZED:
            await self.recorder.record(
                lambda session: orders.record_authorized(session, request.order_id, request.amount)
            )
        elif (url := authorization.action_url) is not None:
            await self.recorder.record(
                lambda session: orders.record_action_required(
                    session, request.order_id, authorization.attempt, url, request.deadline
                )
            )
        else:
            code = authorization.decline_code or "card_declined"
            await self.recorder.record(
                lambda session: orders.record_declined(
                    session, request.order_id, authorization.attempt, code, request.deadline
                )
            )
