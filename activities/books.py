"""Holds the processor's books against ours, over its official API alone, and gives back what nobody may keep."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from loguru import logger
from sqlmodel import col, select
from temporalio import activity
from temporalio.client import Client

from activities.breaks import BreakBook
from core.db import Sessions, clock
from core.temporal import tell_order
from models.errors import MercatoError
from models.messages import BooksResult, ProcessorNews, ReconcileInput
from models.orders import Order
from models.payments import Payment
from models.types import PaymentStatus
from services import books, breaks, payments, processor_events, refunds
from services import payment_records as records
from services.books import Finding
from services.processor import GivenBack, Intent, Processor, ProcessorUnavailable, RequestRefused

OVERLAP = timedelta(seconds=120)  # a young intent is looked at again for so long
FIRST_LOOK = timedelta(hours=1)
SETTLING = timedelta(seconds=15)  # younger ones are still being dealt with
BEGINNING = datetime.fromtimestamp(0, UTC)
MANY = 200


@dataclass(frozen=True)
class Ours:
    """What we know of an intent: the payment and the order that it names, or that name it."""

    payment: Payment | None
    order: Order | None


@dataclass(frozen=True)
class Window:
    """Intents made in this time. `what`: the mark that says how far earlier passes have come."""

    what: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class BooksActivities:
    orders: Sessions
    payments: Sessions
    processor: Processor
    book: BreakBook
    client: Client

    @activity.defn
    async def compare_books(self, request: ReconcileInput) -> BooksResult:
        """Every intent while it is young and once more when it is old, every break still open, every payment of unknown
        outcome."""
        intents = given_back = woken = 0
        for window in await self._windows(request):
            reached = min(window.since, window.until)
            async for page in self._pages(window):
                reached = max(reached, min(_made(page[0]), window.until))
                due = [intent for intent in page if _made(intent) <= window.until]
                intents += len(due)
                outcomes = await self._judge_all(due, request)
                given_back += outcomes.count("given back")
                woken += outcomes.count("woken")
            # as far as the processor's own clock is known to have come: it may be behind ours
            async with self.orders() as session:
                await breaks.set_reconciled_until(session, window.what, reached)
        given_back += await self._look_again(request)
        woken += await self._ask_for_the_unknown(request)
        await self._hear_of_failed_refunds()
        async with self.orders() as session:
            still_open = len(await breaks.open_of(session, books.KINDS))
        return BooksResult(intents=intents, breaks=still_open, given_back=given_back, woken=woken)

    async def _windows(self, request: ReconcileInput) -> list[Window]:
        """What happens to an intent mostly happens soon; but a shopper may sit at the bank's page until the order ends,
        so each is looked at once more when its order must have come to an end."""
        async with self.orders() as session:
            now = await clock(session)
            if request.everything:
                return [Window("sweep", BEGINNING, now)]
            young = await breaks.reconciled_until(session, "intents")
            old = await breaks.reconciled_until(session, "old intents")
        return [
            Window("intents", (young or now - FIRST_LOOK) - OVERLAP, now - SETTLING),
            Window("old intents", old or now - FIRST_LOOK, now - timedelta(seconds=request.overdue_seconds)),
        ]

    async def _pages(self, window: Window) -> AsyncIterator[list[Intent]]:
        """Newest first, those made after the window included."""
        if window.since >= window.until:
            return
        async for page in self.processor.intents_since(int(window.since.timestamp())):
            activity.heartbeat(window.what, page[0].created)
            yield page

    async def _judge_all(self, page: Sequence[Intent], request: ReconcileInput) -> list[str]:
        """What became of each that is not as it should be."""
        ours = await self._ours(page)
        suspects = [intent for intent in page if books.compare(intent, ours[intent.id].payment, ours[intent.id].order)]
        return [await self._judged(intent.id, request) for intent in suspects]

    async def _judged(self, intent_id: str, request: ReconcileInput) -> str:
        """One that cannot be judged now must not keep the others waiting: the next pass is here soon."""
        try:
            activity.heartbeat(intent_id)
            return await self._judge(intent_id, request)
        except (MercatoError, RequestRefused) as error:
            logger.warning("Intent {} could not be reconciled: {}", intent_id, error)
            return ""

    async def _judge(self, intent_id: str, request: ReconcileInput) -> str:
        """What has been done about the intent: nothing, "given back", "woken", "open"."""
        intent, ours, finding = await self._look(intent_id)
        if finding is None:
            return ""
        order_id = ours.order.id if ours.order else _order_of(intent)
        if finding.kind == "payment_mismatch" and order_id is not None and await self._wake(order_id, intent):
            return "woken"  # its run asks for itself; should it not, the next pass is here again
        seen = await self.book.open(finding.kind, intent.id, ours.order or order_id, finding.says)
        # an intent that names no order may be somebody else's business in the same account: for staff
        if seen is None or finding.kind not in books.GIVEN_BACK or order_id is None:
            return "open"
        if seen.open_seconds < request.give_back_after_seconds or not await self._give_back(intent, ours):
            return "open"
        await self.book.close(finding.kind, intent.id, order_id, f"given back: {finding.says}")
        return "given back"

    async def _look(self, intent_id: str) -> tuple[Intent, Ours, Finding | None]:
        """The intent as it is now. A finding counts if it is so by what we knew before it was asked for, and after:
        what is being done in this moment is no break."""
        stub = await self.processor.retrieve(intent_id)
        before = (await self._ours([stub]))[intent_id]
        intent = await self.processor.retrieve(intent_id)
        after = (await self._ours([intent]))[intent_id]
        first, second = (books.compare(intent, ours.payment, ours.order) for ours in (before, after))
        finding = second if first and second and first.kind == second.kind else None
        if finding and await self._given_back_before(intent, after, finding):
            finding = None
        return intent, after, finding

    async def _ours(self, intents: Sequence[Intent]) -> dict[str, Ours]:
        named = {intent.id: order_id for intent in intents if (order_id := _order_of(intent))}
        async with self.payments() as session:
            found = await payments.of_intents(session, [intent.id for intent in intents], list(named.values()))
        by_intent = {payment.intent_id: payment for payment in found}
        by_order = {payment.order_id: payment for payment in found}
        wanted = {*named.values(), *by_order}
        async with self.orders() as session:
            rows = (await session.exec(select(Order).where(col(Order.id).in_(wanted)))).all()
        orders = {order.id: order for order in rows}

        def ours(intent: Intent) -> Ours:
            payment = by_intent.get(intent.id) or by_order.get(named.get(intent.id))  # type: ignore[arg-type]
            order_id = payment.order_id if payment else named.get(intent.id)
            return Ours(payment, orders.get(order_id) if order_id else None)

        return {intent.id: ours(intent) for intent in intents}

    async def _given_back_before(self, intent: Intent, ours: Ours, finding: Finding) -> bool:
        """What is refunded beside our books stays `succeeded`, and is in no row of ours."""
        if intent.status != "succeeded" or finding.kind not in books.GIVEN_BACK or _in_our_books(intent, ours):
            return False
        refunded = sum(refund.amount for refund in await self.processor.refunds_of(intent.id) if refund.counts)
        return refunded >= intent.amount_received

    async def _give_back(self, intent: Intent, ours: Ours) -> bool:
        """Whether the money is back. Each with a key of its own: doing it twice gives back once.

        A payment of ours goes by way of our books; what is not in them, or counts as voided there, goes beside them.
        """
        taken = intent.status == "succeeded"
        if ours.payment is None or not _in_our_books(intent, ours):
            if taken:
                refund: GivenBack = await self.processor.refund(intent.id, f"extra:{intent.id}:refund")
                return refund.counts
            return (await self.processor.cancel(intent.id, f"extra:{intent.id}:void")).status == "canceled"
        order_id = ours.payment.order_id
        if not taken:
            voiding = await payments.void(self.payments, self.processor, order_id=order_id)
            return voiding.status is PaymentStatus.VOIDED
        await records.note_captured(self.payments, order_id, intent.latest_charge)
        refunded = await refunds.refund(self.payments, self.processor, order_id=order_id)
        return refunded.status is PaymentStatus.REFUNDED

    async def _look_again(self, request: ReconcileInput) -> int:
        """The breaks that are open: what became of them, however old they are."""
        async with self.orders() as session:
            still_open = await breaks.open_of(session, books.KINDS)
        given_back = 0
        for one in still_open[:MANY]:
            activity.heartbeat(one.subject)
            try:
                _, _, finding = await self._look(one.subject)
            except ProcessorUnavailable:
                return given_back  # nobody can say anything now
            except (MercatoError, RequestRefused):
                continue  # the processor knows it no longer: for staff
            if finding is None or finding.kind != one.kind:
                await self.book.close(one.kind, one.subject, one.order_id, "no longer so")
            else:
                given_back += await self._judged(one.subject, request) == "given back"
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
                activity.heartbeat(payment.intent_id)
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


def _made(intent: Intent) -> datetime:
    return datetime.fromtimestamp(intent.created, UTC)


def _in_our_books(intent: Intent, ours: Ours) -> bool:
    return ours.payment is not None and ours.payment.intent_id == intent.id and ours.payment.voided_at is None


def _order_of(intent: Intent) -> UUID | None:
    try:
        return UUID(intent.order_id or "")
    except ValueError:
        return None
