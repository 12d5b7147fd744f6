"""What crosses Temporal: one message in, one out, for each workflow, update and activity.

Fields are only ever added, with defaults, so that histories of earlier releases still replay. An expected outcome
(declined, out of stock) is a value here; an exception means broken.
"""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from models.types import Money, OrderStatus, PaymentStatus, ReservationState


class Message(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- parts ---------------------------------------------------------------------------------------------------------


class ClaimedLine(Message):
    """One cart line that an order has claimed."""

    product_id: int
    quantity: int


class ClaimedCart(Message):
    """The lines claimed and the cart's version at that moment."""

    lines: list[ClaimedLine]
    version: int


class PricedProduct(Message):
    product_id: int
    sku: str
    name: str
    unit_price: Money
    active: bool


class OrderLine(Message):
    """A line as bought: name and price are a snapshot."""

    product_id: int
    sku: str
    name: str
    quantity: int
    unit_price: Money
    line_total: Money


class Shortage(Message):
    """What could not be had; `available` is what was there at that moment."""

    product_id: int
    requested: int
    available: int


class Refusal(Message):
    """Why an order was rejected: an error code of the HTTP contract, a sentence, and details for the problem body."""

    code: str
    detail: str
    extra: dict[str, object] = {}


# --- steps ---------------------------------------------------------------------------------------------------------


class Reservation(Message):
    """`state` None: nothing is held, `shortages` say why. `expires_at` by the database clock."""

    state: ReservationState | None
    expires_at: datetime | None = None
    seconds_left: float | None = None
    shortages: list[Shortage] = []


class Authorization(Message):
    """What the processor said for certain: `authorized`, `declined` (with its decline code), or `none` with
    `action_url`: the shopper has to authenticate there first (3-D Secure); ask again to learn what came of it."""

    status: PaymentStatus
    attempt: int
    decline_code: str | None = None
    intent_id: str | None = None
    amount: Money | None = None
    action_url: str | None = None


class Capture(Message):
    status: PaymentStatus
    intent_id: str | None = None
    amount: Money | None = None


class Voiding(Message):
    """`voided`: money that was held is free again; `none`: there was nothing to give back."""

    status: PaymentStatus
    intent_id: str | None = None


class Refund(Message):
    """`refunded`: everything that was taken is given back; `none`, `voided`: there was nothing to give back."""

    status: PaymentStatus
    intent_id: str | None = None
    refund_id: str | None = None
    amount: Money | None = None


class Ending(Message):
    """Why an order was not sold."""

    status: OrderStatus
    refusal: Refusal | None = None
    actor: str = ""
    reason: str = ""


class RunOfOrder(Message):
    """What every run about an order is started with. All that it depends on is here, so that replay agrees."""

    order_id: UUID
    customer_id: UUID
    reservation_ttl_seconds: int = 600
    fast_path: bool = True
    fast_step_seconds: float = 2
    round_seconds: float = 60
    round_pause_seconds: float = 180
    attempt_seconds: float = 10  # how long after a worker's death its regular attempt counts as lost


class CheckoutInput(RunOfOrder):
    """Starts a checkout."""

    payment_method_id: str
    expected_total: Money | None = None
    cart_version: int | None = None
    repair: bool = False  # after a terminated run: undo an open order, or bring a confirmed one to its end
    # What a run whose history had become too long hands on to the next one.
    payment_request: str = "place"  # which payment request `payment_method_id` came with
    ending: Ending | None = None  # it was being undone, for this reason


class CheckoutResult(Message):
    order_id: UUID
    status: OrderStatus
    payment_status: PaymentStatus
    total: Money | None = None


class PrepareOrder(Message):
    """Step 1. With `look_only` nothing is claimed or written: a repair only wants to know where the order stands."""

    order_id: UUID
    customer_id: UUID
    expected_total: Money | None = None
    cart_version: int | None = None
    look_only: bool = False


class PreparedOrder(Message):
    """Where the order stands, and what it buys. `refusal` set: it cannot be sold (empty cart, price changed, ...)."""

    number: str
    status: OrderStatus
    payment_status: PaymentStatus = PaymentStatus.NONE
    lines: list[OrderLine] = []
    total: Money | None = None
    committed: bool = False  # the stock is sold already: from here forward only
    begun: bool = False  # the lines were written before: the run that wrote them may have come further
    needs_attention: bool = False
    refusal: Refusal | None = None


class ReserveStock(Message):
    order_id: UUID
    quantities: dict[int, int]  # product id -> quantity
    ttl_seconds: int


class AuthorizePayment(Message):
    """`request_key` names the payment request: a repeat of it is the same attempt."""

    order_id: UUID
    request_key: str
    payment_method_id: str
    amount: Money
    deadline: datetime | None = None  # until when another card may be sent, shown to the shopper


class OrderRef(Message):
    order_id: UUID


class ProlongReservation(Message):
    order_id: UUID
    ttl_seconds: int


class Confirmation(Message):
    """`confirmed` False: the reservation had been released meanwhile, nothing was sold."""

    confirmed: bool
    status: OrderStatus


class QueueConfirmation(Message):
    order_id: UUID
    customer_id: UUID
    number: str
    total: Money


class CloseOrder(Message):
    """Ends an order that was not sold: gives the cart's lines back and writes the ending."""

    order_id: UUID
    status: OrderStatus
    refusal: Refusal | None = None
    actor: str = ""
    reason: str = ""


class BeginCancel(Message):
    """A sold order is to be cancelled; written down before anything is given back."""

    order_id: UUID
    actor: str
    reason: str


class SoldOrder(Message):
    """Where a sold order stands when its cancel begins; not `cancellable`: it was never sold, or is at its end."""

    number: str
    status: OrderStatus
    payment_status: PaymentStatus
    total: Money | None = None
    cancellable: bool = False


class Attention(Message):
    """`step` stands still because of `cause`; `step` empty: all is well again."""

    order_id: UUID
    step: str = ""
    cause: str = ""


class AuditAction(Message):
    order_id: UUID
    actor: str
    action: str
    reason: str


# --- what people send ----------------------------------------------------------------------------------------------


class StaffAction(Message):
    """Who acts and why; `step` picks one of several steps that stand still (empty: all of them)."""

    actor: str = ""
    reason: str = ""
    step: str = ""


class FulfilmentInput(RunOfOrder):
    """Starts what comes after the sale. `cancel`: a cancel that was asked for before, by a run that was lost."""

    cancel: StaffAction | None = None


class UsePaymentMethod(Message):
    payment_method_id: str = ""
    actor: str = ""
    reason: str = ""


class ProcessorNews(Message):
    """The processor says that something happened to this order's payment. Nothing in it is believed: it only makes a
    run that waits for the processor ask again, now."""

    event_id: str
    type: str
    intent_id: str


class OrderOutcome(Message):
    """What an update answers: where the order stands now."""

    order_id: UUID
    status: OrderStatus
    payment_status: PaymentStatus
    sentence: str


# --- reconciliation ------------------------------------------------------------------------------------------------


class ReconcileInput(Message):
    """Orders untouched for `older_than_seconds` are looked at, `limit` at a time.

    Money that the processor has and nobody may keep goes back after `give_back_after_seconds`; an order or reservation
    is overdue when it has been open for `overdue_seconds`. `everything`: not only what is new since the pass before.
    """

    older_than_seconds: int = 30
    limit: int = 200
    give_back_after_seconds: int = 600
    overdue_seconds: int = 1_500
    everything: bool = False


class ReconcileResult(Message):
    """How many orders were found and mended, by kind of break."""

    started: int = 0
    repaired: int = 0
    reservations_released: int = 0
    breaks_open: int = 0  # found in this pass, and not mended by it


class BooksResult(Message):
    """What came of holding the processor's books against ours."""

    intents: int = 0
    breaks: int = 0
    given_back: int = 0
    woken: int = 0  # orders that were told that the processor knows more than they do
