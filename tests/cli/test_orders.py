"""`mercato orders list` and `show`: how support finds an order."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cli.command import mercato
from tests.e2e.shop import Shop
from tests.e2e.shopper import DECLINED
from tests.stack import Platform


@dataclass(frozen=True)
class Bought:
    """One customer's orders, oldest first: two that are paid, one that waits for another card."""

    email: str
    customer: str
    orders: list[dict[str, Any]]

    @property
    def numbers(self) -> list[str]:
        return [order["number"] for order in self.orders]


@pytest.fixture(scope="module")
async def bought(platform: Platform) -> AsyncIterator[Bought]:
    async with Shop.open(platform) as shop:
        product, shopper = await shop.product(), await shop.shopper()
        orders = []
        for card in ("pm_card_visa", "pm_card_visa", DECLINED):
            await shopper.cart_is_free()
            await shopper.add(product)
            placed = (await shopper.place(card)).json()
            wanted = {"paymentStatus": "declined" if card == DECLINED else "captured"}
            orders.append(await shopper.until(placed["orderId"], **wanted))
        yield Bought(shopper.email, shopper.user_id, orders)
        await shopper.cancel(orders[-1]["id"])


async def listed(platform: Platform, *options: str) -> list[str]:
    """The numbers of `orders list --json`."""
    done = await mercato("orders", "list", "--json", *options, env=platform.env)
    assert done.returncode == 0, done.stderr
    return [order["number"] for order in json.loads(done.stdout)["items"]]


async def test_each_option_narrows_the_list(platform: Platform, bought: Bought) -> None:
    first, second, declined = bought.numbers
    of_customer = ("--customer", bought.email)
    typed = first.replace("-", " ").lower()
    for options, expected in (
        ((), [declined, second, first]),
        (("--status", "confirmed"), [second, first]),
        (("--status", "confirmed", "--status", "action_required"), [declined, second, first]),
        (("--payment-status", "declined"), [declined]),
        (("--number", typed), [first]),
        (("--number", first[:8]), [first]),
        (("--needs-attention",), []),
        (("--since", "1h"), [declined, second, first]),
        (("--since", bought.orders[1]["createdAt"]), [declined, second]),
        (("--until", bought.orders[1]["createdAt"]), [first]),
        (("--since", "2999-01-01"), []),
        (("--limit", "2"), [declined, second]),
        (("--number", "no"), []),
    ):
        assert await listed(platform, *of_customer, *options) == expected, options
    assert await listed(platform, "--customer", bought.customer) == [declined, second, first]
    assert await listed(platform, "--customer", "nobody@mercato.test") == []


async def test_the_list_says_how_to_go_on(platform: Platform, bought: Bought) -> None:
    first, second, declined = bought.numbers
    options = ("orders", "list", "--customer", bought.email, "--limit", "2")
    done = await mercato(*options, env=platform.env)
    assert re.search(rf"{declined}.*{second}.*--limit 20.*--cursor (\S+)", done.stdout, re.DOTALL), done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    cursor = done.stdout.split()[-1]
    rest = await mercato(*options, "--cursor", cursor, env=platform.env)
    assert rest.stdout.count("\n") == 2, rest.stdout
    assert first in rest.stdout
    assert "--cursor" not in rest.stdout


async def test_show_takes_a_number_as_people_type_it(platform: Platform, bought: Bought) -> None:
    number = bought.numbers[0]
    letters = number.replace("0", "o").replace("1", "l")
    for typed in (number.lower(), f"# {letters}", number.replace("-", ""), number[:9]):
        done = await mercato("orders", "show", typed, env=platform.env)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"Order {number} "), done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "abc"), "abc is no order's id, and no order's number begins so."),
        (("show", "ooooo ooooo"), "There is no order 00000-00000."),
        (("list", "--customer", "sue"), "customer: neither a customer's id nor an e-mail address"),
        (("list", "--cursor", "x"), "this cursor was not given out here"),
        (("list", "--since", "yesterday"), "30m, 24h or 7d"),
        (("list", "--status", "lost"), "lost"),
    ],
)
async def test_what_makes_no_sense_is_said_in_words(platform: Platform, arguments: tuple[str, ...], words: str) -> None:
    done = await mercato("orders", *arguments, env=platform.env)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
