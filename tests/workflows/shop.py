"""A shop made of fake activities, registered under the real names, for workflow tests."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.messages import (
    Attention,
    AuditAction,
    Authorization,
    AuthorizePayment,
    BeginCancel,
    Capture,
    CheckoutInput,
    CloseOrder,
    Confirmation,
    FulfilmentInput,
    OrderLine,
    OrderRef,
    PreparedOrder,
    PrepareOrder,
    ProlongReservation,
    QueueConfirmation,
    Refund,
    Refusal,
    Reservation,
    ReserveStock,
    Shortage,
    SoldOrder,
    Voiding,
)
from models.types import Money, OrderStatus, PaymentStatus, ReservationState

TOTAL = Money(amount=2500, currency="EUR")


class FakeShop:
    """Behaves well until told otherwise: `fail[step]` outages first, then what the other fields say."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: defaultdict[str, int] = defaultdict(int)  # step -> how many outages first
        self.refuse: set[str] = set()  # steps that a service refuses for good
        self.declined_cards: set[str] = set()
        self.challenged_cards: set[str] = set()  # their bank wants to see the shopper
        self.challenge = "open"  # then "passed" or "failed"
        self.asked: list[AuthorizePayment] = []
        self.shortage = False
        self.refusal: Refusal | None = None
        self.present = OrderStatus.PENDING
        self.committed = False
        self.restocked = False  # sold, and cancelled after that
        self.begun = False  # an earlier run wrote the order's lines, and may have come further
        self.needs_attention = False
        self.released_meanwhile = False
        self.ttl = 600.0
        self.held = False
        self.money = "none"
        self.closed: CloseOrder | None = None
        self.attention: list[Attention] = []
        self.audited: list[AuditAction] = []
        self.on_call: dict[str, Any] = {}

    def count(self) -> Counter[str]:
        return Counter(self.calls)

    def break_until_marked(self, step: str) -> None:
        """An outage that lasts until the order is marked, however many attempts the server makes of a round: the one
        that skips time does not always make as many."""
        self.fail[step] = 1_000

        async def mend() -> None:
            self.fail[step] = 0

        self.on_call["mark_attention"] = mend

    async def _called(self, step: str) -> None:
        self.calls.append(step)
        if step in self.on_call:
            await self.on_call[step]()
        if self.fail[step] > 0:
            self.fail[step] -= 1
            raise ApplicationError(f"{step} is down", type="dependency_unavailable")
        if step in self.refuse:
            raise ApplicationError(f"{step} refused", type="refused", non_retryable=True)

    @activity.defn
    async def prepare(self, request: PrepareOrder) -> PreparedOrder:
        await self._called("prepare")
        line = OrderLine(product_id=1, sku="A-1", name="Lamp", quantity=1, unit_price=TOTAL, line_total=TOTAL)
        return PreparedOrder(
            number="AAAAA-BBBBB",
            status=self.present,
            lines=[line],
            total=TOTAL,
            committed=self.committed,
            begun=self.begun,
            needs_attention=self.needs_attention,
            refusal=self.refusal,
        )

    @activity.defn
    async def reserve(self, request: ReserveStock) -> Reservation:
        await self._called("reserve")
        if self.shortage:
            return Reservation(state=None, shortages=[Shortage(product_id=1, requested=1, available=0)])
        self.held = True
        return Reservation(state=ReservationState.ACTIVE, expires_at=datetime.now(UTC), seconds_left=self.ttl)

    @activity.defn
    async def prolong(self, request: ProlongReservation) -> Reservation:
        await self._called("prolong")
        return Reservation(state=ReservationState.ACTIVE, expires_at=datetime.now(UTC), seconds_left=self.ttl)

    @activity.defn
    async def release(self, request: OrderRef) -> ReservationState:
        await self._called("release")
        if self.restocked:
            return ReservationState.RESTOCKED
        if self.committed:
            return ReservationState.COMMITTED
        self.held = False
        return ReservationState.RELEASED

    @activity.defn
    async def authorize(self, request: AuthorizePayment) -> Authorization:
        await self._called("authorize")
        self.asked.append(request)
        if request.payment_method_id in self.challenged_cards and self.challenge == "open":
            return Authorization(status=PaymentStatus.NONE, attempt=1, action_url="http://bank.test/3ds")
        if request.payment_method_id in self.challenged_cards and self.challenge == "failed":
            code = "payment_intent_authentication_failure"
            return Authorization(status=PaymentStatus.DECLINED, attempt=1, decline_code=code)
        if request.payment_method_id in self.declined_cards:
            return Authorization(status=PaymentStatus.DECLINED, attempt=1, decline_code="insufficient_funds")
        self.money = "held"
        return Authorization(status=PaymentStatus.AUTHORIZED, attempt=1, amount=request.amount)

    @activity.defn
    async def void(self, request: OrderRef) -> Voiding:
        await self._called("void")
        voided = self.money == "held"
        self.money = "none"
        return Voiding(status=PaymentStatus.VOIDED if voided else PaymentStatus.NONE)

    @activity.defn
    async def capture(self, request: OrderRef) -> Capture:
        await self._called("capture")
        self.money = "taken"
        return Capture(status=PaymentStatus.CAPTURED, amount=TOTAL)

    @activity.defn
    async def refund(self, request: OrderRef) -> Refund:
        await self._called("refund")
        self.money = "given back"
        return Refund(status=PaymentStatus.REFUNDED, amount=TOTAL)

    @activity.defn
    async def restock(self, request: OrderRef) -> ReservationState:
        await self._called("restock")
        return ReservationState.RESTOCKED

    @activity.defn
    async def begin_cancel(self, request: BeginCancel) -> SoldOrder:
        await self._called("begin_cancel")
        return SoldOrder(
            number="AAAAA-BBBBB",
            status=self.present,
            payment_status=PaymentStatus.CAPTURED,
            total=TOTAL,
            cancellable=self.present is OrderStatus.CONFIRMED,
        )

    @activity.defn
    async def cancel_sold(self, request: CloseOrder) -> OrderStatus:
        await self._called("cancel_sold")
        self.closed = request
        return request.status

    @activity.defn
    async def confirm(self, request: OrderRef) -> Confirmation:
        await self._called("confirm")
        if self.released_meanwhile:
            return Confirmation(confirmed=False, status=OrderStatus.PENDING)
        return Confirmation(confirmed=True, status=OrderStatus.CONFIRMED)

    @activity.defn
    async def close(self, request: CloseOrder) -> OrderStatus:
        await self._called("close")
        self.closed = request
        return request.status

    @activity.defn(name="clear_cart")
    async def clear_cart(self, request: OrderRef) -> None:
        await self._called("clear_cart")

    @activity.defn(name="notify")
    async def notify(self, request: QueueConfirmation) -> bool:
        await self._called("notify")
        return True

    @activity.defn
    async def mark_attention(self, request: Attention) -> None:
        await self._called("mark_attention")
        self.attention.append(request)

    @activity.defn
    async def clear_attention(self, request: Attention) -> None:
        await self._called("clear_attention")
        self.attention.append(request)

    @activity.defn
    async def audit(self, request: AuditAction) -> None:
        await self._called("audit")
        self.audited.append(request)

    def activities(self) -> list[Any]:
        return [
            self.prepare,
            self.reserve,
            self.prolong,
            self.release,
            self.authorize,
            self.void,
            self.capture,
            self.refund,
            self.restock,
            self.begin_cancel,
            self.cancel_sold,
            self.confirm,
            self.close,
            self.clear_cart,
            self.notify,
            self.mark_attention,
            self.clear_attention,
            self.audit,
        ]


def fulfilment_input(**changes: Any) -> FulfilmentInput:
    values: dict[str, Any] = {
        "order_id": uuid4(),
        "customer_id": uuid4(),
        "fast_step_seconds": 0.3,
        "round_seconds": 2,
        "round_pause_seconds": 180,
    }
    return FulfilmentInput(**{**values, **changes})


def checkout_input(order_id: UUID | None = None, **changes: Any) -> CheckoutInput:
    values: dict[str, Any] = {
        "order_id": order_id or uuid4(),
        "customer_id": uuid4(),
        "payment_method_id": "pm_card_visa",
        "fast_step_seconds": 0.3,
        "round_seconds": 2,
        "round_pause_seconds": 180,
    }
    return CheckoutInput(**{**values, **changes})
