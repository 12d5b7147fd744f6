"""`mercato demo` and `mercato orders` against the running platform."""

import re

import pytest

from tests.cli.command import mercato
from tests.stack import Platform

UUID_FORM = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def order_of(output: str) -> str:
    found = re.search(rf"mercato orders show ({UUID_FORM})", output)
    assert found, output
    return found[1]


async def test_the_demo_walks_to_a_paid_order(platform: Platform) -> None:
    done = await mercato("demo", "--url", platform.base_url, env=platform.env)
    assert done.returncode == 0, done.stdout + done.stderr
    for event in ("order.placed", "order.reserved", "payment.authorized", "order.confirmed", "payment.captured"):
        assert event in done.stdout
    assert "processor:receivable" in done.stdout
    assert f"/namespaces/default/workflows/checkout-{order_of(done.stdout)}" in done.stdout
    assert "Idempotent-Replayed: true" in done.stdout


async def test_a_declined_card_waits_for_another_one(platform: Platform) -> None:
    done = await mercato("demo", "--url", platform.base_url, "--card", "pm_card_chargeDeclined", env=platform.env)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("402", "payment.declined", "action_required", "still reserved", "order.confirmed"):
        assert words in done.stdout


async def test_a_card_whose_bank_wants_to_see_the_shopper_and_a_change_of_mind(platform: Platform) -> None:
    card = ("--card", "pm_card_authenticationRequired", "--cancel")
    done = await mercato("demo", "--url", platform.base_url, *card, env=platform.env)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("action_required", "The bank wants to see the shopper", "cancelled, payment refunded", "is back"):
        assert words in done.stdout


async def test_a_card_without_money_waits_for_another_one_too(platform: Platform) -> None:
    done = await mercato(
        "demo", "--url", platform.base_url, "--card", "pm_card_visa_chargeDeclinedInsufficientFunds", env=platform.env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "402" in done.stdout


async def test_orders_are_listed_and_shown_by_id_and_number(platform: Platform) -> None:
    order_id = order_of((await mercato("demo", "--url", platform.base_url, env=platform.env)).stdout)
    listed = await mercato("orders", "list", "--status", "confirmed", "--limit", "100", env=platform.env)
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if order_id in line]
    number = line.split()[0]
    by_id = await mercato("orders", "show", order_id, env=platform.env)
    by_number = await mercato("orders", "show", number, env=platform.env)
    assert by_id.returncode == by_number.returncode == 0, by_id.stderr + by_number.stderr
    for words in (number, "payment.captured", "customer:authorized", f"checkout-{order_id}: completed"):
        assert words in by_id.stdout
    assert by_number.stdout == by_id.stdout
    assert max(map(len, listed.stdout.splitlines())) <= 100


async def test_what_the_demo_leaves_behind_replays(platform: Platform) -> None:
    order_id = order_of((await mercato("demo", "--url", platform.base_url, env=platform.env)).stdout)
    assert (await mercato("replay", order_id, env=platform.env)).returncode == 0


async def test_what_the_demo_leaves_behind_breaks_no_invariant(platform: Platform) -> None:
    for card in ("pm_card_visa", "pm_card_chargeDeclined"):
        assert (await mercato("demo", "--card", card, env=platform.env)).returncode == 0
    done = await mercato("check", env={**platform.env, "MERCATO_DATABASE_URL": platform.owner_url})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [["demo"], ["orders", "list"], ["orders", "show", "T9Q0N-V2WDC"]])
async def test_without_a_platform_it_says_how_to_start_one(command: list[str]) -> None:
    done = await mercato(*command, "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "Nothing answers at http://127.0.0.1:9" in done.stderr
    assert "mercato up" in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_unknown_order_and_a_shopper_are_refused_in_words(platform: Platform) -> None:
    unknown = await mercato("orders", "show", "00000-00000", env=platform.env)
    assert unknown.returncode == 1
    assert "There is no order 00000-00000." in unknown.stderr
    shopper = {**platform.env, "MERCATO_STAFF_EMAIL": "shopper@mercato.test"}
    refused = await mercato("orders", "list", env=shopper)
    assert refused.returncode == 1
    assert "403 forbidden" in refused.stderr
