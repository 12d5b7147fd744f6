"""What an order costs: one small priced rule, from settings, pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.messages import OrderLine
from models.types import Money


@dataclass(frozen=True)
class Rates:
    """Amounts in minor units; tax in basis points (1900 is 19 %) on goods and shipping."""

    currency: str
    shipping_flat_amount: int = 0
    shipping_free_from_amount: int = 0  # 0: never free
    tax_basis_points: int = 0


@dataclass(frozen=True)
class Bill:
    subtotal: Money
    shipping: Money
    tax: Money

    @property
    def total(self) -> Money:
        return self.subtotal + self.shipping + self.tax


def bill(lines: Sequence[OrderLine], rates: Rates) -> Bill:
    """The bill for `lines`; tax is rounded half to even, once an order.

    Raises:
        ValueError: a line is in another currency.
    """
    subtotal = Money(amount=0, currency=rates.currency)
    for line in lines:
        subtotal = subtotal + line.line_total
    free = 0 < rates.shipping_free_from_amount <= subtotal.amount
    shipping = 0 if free else rates.shipping_flat_amount
    return Bill(
        subtotal=subtotal,
        shipping=Money(amount=shipping, currency=rates.currency),
        tax=Money(amount=_share(subtotal.amount + shipping, rates.tax_basis_points), currency=rates.currency),
    )


def _share(amount: int, basis_points: int) -> int:
    quotient, remainder = divmod(amount * basis_points, 10_000)
    round_up = remainder > 5_000 or (remainder == 5_000 and quotient % 2 == 1)
    return quotient + round_up
