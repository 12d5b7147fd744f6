"""Holds the processor's books against ours, over its official API alone, and gives back what nobody may keep."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from loguru import logger
from temporalio import activity
from temporalio.client import Client

from activities.breaks import BreakBook
from core.db import Sessions
from core.temporal import tell_order
from models.errors import MercatoError
from models.messages import BooksResult, ProcessorNews, ReconcileInput
from models.orders import Order
from models.payments import Payment
from services import books, breaks, payments, processor_events, refunds
from services.books import Finding
from services.processor import Intent, Processor, RequestRefused

INTENTS = "intents"
OVERLAP = timedelta(seconds=120)  # an intent is looked at again for so long: what happens to it happens soon
FIRST_LOOK = timedelta(hours=1)
SETTLING = timedelta(seconds=15)  # younger ones are still being dealt with
MANY = 200


@dataclass(frozen=True)
class BooksActivities:
    orders: Sessions
    payments: Sessions
    processor: Processor
    book: BreakBook
    client: Client

    @activity.defn
    async def compare_books(self, request: ReconcileInput) -> BooksResult:
        """Every intent made since the pass before, every break still open, every payment of unknown outcome."""
        began = datetime.now(UTC)
        intents = given_back = woken = 0
        async for intent in self._intents(request, began):
            intents += 1
            outcome = await self._judged(intent, request)
            given_back += outcome == "given back"
            woken += outcome == "woken"
        given_back += await self._look_again(request)
        woken += await self._ask_for_the_unknown(request)
        await self._hear_of_failed_refunds()
        async with self.orders() as session:
            await breaks.set_reconciled_until(session, INTENTS, began - SETTLING)
            still_open = len(await breaks.open_of(session, books.KINDS))
        return BooksResult(intents=intents, breaks=still_open, given_back=given_back, woken=woken)

    async def _intents(self, request: ReconcileInput, began: datetime) -> AsyncIterator[Intent]:
        async with self.orders() as session:
            until = await breaks.reconciled_until(session, INTENTS)
        since = datetime.fromtimestamp(0, UTC) if request.everything else (until or began - FIRST_LOOK) - OVERLAP
        settled = (began - SETTLING).timestamp()
        async for page in self.processor.intents_since(int(since.timestamp())):
            for intent in page:
                if request.everything or intent.created <= settled:
                    yield intent

    async def _judged(self, intent: Intent, request: ReconcileInput) -> str:
        """One that cannot be judged now must not keep the others waiting: the next pass is here soon."""
        try:
            return await self._judge(intent, request)
        except (MercatoError, RequestRefused) as error:
            logger.warning("Intent {} could not be reconciled: {}", intent.id, error)
            return ""

    async def _judge(self, intent: Intent, request: ReconcileInput) -> str:
        """What has been done about the intent: nothing, "given back", "woken", "open"."""
        payment, order = await self._ours(intent)
        finding = books.compare(intent, payment, order)
        if finding is None or await self._given_back_before(intent, finding):
            return ""
        if finding.kind == "payment_mismatch" and order is not None and await self._wake(order.id, intent):
            return "woken"  # its run asks for itself; should it not, the next pass is here again
        seen = await self.book.open(finding.kind, intent.id, order or _order_of(intent), finding.says)
        if seen is None or finding.kind not in books.GIVEN_BACK:
            return "open"
        if seen.open_seconds < request.give_back_after_seconds:
            return "open"
        await self._give_back(intent, payment, finding)
        return "given back"

    async def _given_back_before(self, intent: Intent, finding: Finding) -> bool:
        """An extra intent is in no books of ours, and stays `succeeded` when it has been refunded."""
        if finding.kind != "extra_charge" or intent.status != "succeeded":
            return False
        refunded = sum(refund.amount for refund in await self.processor.refunds_of(intent.id) if refund.counts)
        return refunded >= intent.amount_received

    async def _ours(self, intent: Intent) -> tuple[Payment | None, Order | None]:
        """Our payment of the order that the intent names, or else of the intent; and that order."""
        order_id = _order_of(intent)
        async with self.payments() as session:
            found = await payments.of_intents(session, [intent.id], [order_id] if order_id else [])
        payment = next((one for one in found if one.intent_id == intent.id), found[0] if found else None)
        order_id = payment.order_id if payment else order_id
        if order_id is None:
            return payment, None
        async with self.orders() as session:
            return payment, await session.get(Order, order_id)

    async def _give_back(self, intent: Intent, payment: Payment | None, finding: Finding) -> None:
        """Each with a key of its own: doing it twice gives back once.

        An intent of ours goes by way of our books; an extra one is not in them, before or after.
        """
        order_id = payment.order_id if payment else _order_of(intent)
        if finding.kind == "money_without_order" and payment is not None:
            if intent.status == "succeeded":
                await refunds.refund(self.payments, self.processor, order_id=payment.order_id)
            else:
                await payments.void(self.payments, self.processor, order_id=payment.order_id)
        elif intent.status == "succeeded":
            await self.processor.refund(intent.id, f"extra:{intent.id}:refund")
        else:
            await self.processor.cancel(intent.id, f"extra:{intent.id}:void")
        await self.book.close(finding.kind, intent.id, order_id, f"given back: {finding.says}")

    async def _look_again(self, request: ReconcileInput) -> int:
        """The breaks that are open: what became of them, also of those made before the pass looks back to."""
        async with self.orders() as session:
            still_open = await breaks.open_of(session, books.KINDS)
        given_back = 0
        for one in still_open[:MANY]:
            try:
                intent = await self.processor.retrieve(one.subject)
            except (MercatoError, RequestRefused):
                continue  # the processor is away, or knows it no longer: for staff
            payment, order = await self._ours(intent)
            finding = books.compare(intent, payment, order)
            if finding is None or finding.kind != one.kind or await self._given_back_before(intent, finding):
                await self.book.close(one.kind, one.subject, one.order_id, "no longer so")
            else:
                given_back += await self._judged(intent, request) == "given back"
        return given_back

    async def _ask_for_the_unknown(self, request: ReconcileInput) -> int:
        """Whoever does not know what became of the money is told as soon as the processor can say it."""
        async with self.payments() as session:
            unknown = await payments.unknown(session, request.older_than_seconds, MANY)
        woken = 0
        for payment in unknown:
            if payment.intent_id is None:
                continue
            try:
                intent = await self.processor.retrieve(payment.intent_id)
            except (MercatoError, RequestRefused):
                return woken  # it does not say yet
            if intent.status in ("requires_capture", "succeeded", "canceled") or intent.decline_code:
                woken += await self._wake(payment.order_id, intent)
        return woken

    async def _wake(self, order_id: UUID, intent: Intent) -> bool:
        news = ProcessorNews(event_id="reconciliation", type=f"payment_intent.{intent.status}", intent_id=intent.id)
        return await tell_order(self.client, order_id, news)

    async def _hear_of_failed_refunds(self) -> None:
        async with self.payments() as session:
            failed = await processor_events.unheard_refunds(session, MANY)
        for event_id, order_id in failed:
            says = "the bank could not give the refund to the customer: the money is back with us"
            await self.book.open("refund_failed", event_id, order_id, says)
            async with self.payments() as session:
                await processor_events.handled(session, event_id)


def _order_of(intent: Intent) -> UUID | None:
    try:
        return UUID(intent.order_id or "")
    except ValueError:
        return None
