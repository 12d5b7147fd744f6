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
    """What the processor said for certain: `authorized` or `declined` (with its decline code)."""

    status: PaymentStatus
    attempt: int
    decline_code: str | None = None
    intent_id: str | None = None
    amount: Money | None = None


class Capture(Message):
    status: PaymentStatus
    intent_id: str | None = None
    amount: Money | None = None


class Voiding(Message):
    """`voided`: money that was held is free again; `none`: there was nothing to give back."""

    status: PaymentStatus
    intent_id: str | None = None


class CheckoutInput(Message):
    """Starts a checkout. Everything the run depends on is here, so that replay agrees."""

    order_id: UUID
    customer_id: UUID
    payment_method_id: str
    expected_total: Money | None = None
    cart_version: int | None = None
    reservation_ttl_seconds: int = 600
    fast_path: bool = True
    fast_step_seconds: float = 2
    round_seconds: float = 60
    round_pause_seconds: float = 180
    repair: bool = False  # after a terminated run: undo an open order, or bring a confirmed one to its end


class CheckoutResult(Message):
    order_id: UUID
    status: OrderStatus
    payment_status: PaymentStatus
    total: Money | None = None
