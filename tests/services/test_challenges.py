"""3-D Secure: a card whose bank wants to see the shopper, on a real database and a real processor."""

import asyncio

import pytest

from models.errors import Conflict, Unavailable
from models.types import PaymentStatus
from services.intents import PaymentUnknown
from tests.services.paying import BAD, GOOD, KEY, Purchase, insist

AUTHORIZED, DECLINED, NONE = PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.NONE
CARD = "pm_card_authenticationRequired"
POOR = "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds"


async def challenged(order: Purchase, card: str = CARD, attempt: int = 1) -> str:
    """Where the shopper has to go."""
    answer = await order.authorize(card, attempt)
    assert (answer.status, answer.attempt) == (NONE, attempt)
    assert answer.action_url is not None
    assert answer.action_url.startswith("http")
    return answer.action_url


async def test_nothing_is_held_until_the_shopper_was_seen(order: Purchase) -> None:
    url = await challenged(order)
    assert await order.authorize(CARD) == await order.authorize(CARD), "asked again, the answer is the same"
    assert await order.money() == (0, 0, 0)
    assert await order.status() == "none"
    await order.authenticate(url)
    held = await order.authorize(CARD)
    assert (held.status, held.attempt) == (AUTHORIZED, 1)
    assert await order.money() == (4999, 0, 1)
    assert await order.ledger() == ["authorize"]
    assert await order.authorize(CARD) == held
    (attempt,) = await order.attempts()
    assert attempt.tries == 1, "looked at, never confirmed again"


@pytest.mark.parametrize(
    ("card", "verdict", "code"),
    [(CARD, "fail", "payment_intent_authentication_failure"), (POOR, "complete", "insufficient_funds")],
)
async def test_whoever_does_not_pass_is_declined_once(order: Purchase, card: str, verdict: str, code: str) -> None:
    await order.authenticate(await challenged(order, card), verdict)
    declined = await order.authorize(card)
    assert (declined.status, declined.decline_code) == (DECLINED, code)
    assert await order.authorize(card) == declined
    assert (await order.authorize(GOOD, attempt=2)).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_a_declined_card_before_it_is_not_taken_for_its_outcome(order: Purchase) -> None:
    await order.authorize(BAD)
    url = await challenged(order, attempt=2)
    assert (await order.authorize(CARD, 2)).action_url == url
    await order.authenticate(url, "fail")
    assert (await order.authorize(CARD, 2)).decline_code == "payment_intent_authentication_failure"
    assert [attempt.decline_code for attempt in await order.attempts()] == [
        "generic_decline",
        "payment_intent_authentication_failure",
    ]


async def test_another_card_ends_the_wait_for_the_first(order: Purchase) -> None:
    url = await challenged(order)
    assert (await order.authorize(GOOD, attempt=2)).status is AUTHORIZED
    await order.authenticate(url)  # too late: harmless
    assert [attempt.state for attempt in await order.attempts()] == ["declined", "authorized"]
    assert await order.money() == (4999, 0, 1)


async def test_a_second_challenge_takes_the_place_of_the_first(order: Purchase) -> None:
    await challenged(order)
    url = await challenged(order, attempt=2)
    await order.authenticate(url)
    assert (await order.authorize(CARD, attempt=2)).status is AUTHORIZED
    assert [attempt.state for attempt in await order.attempts()] == ["declined", "authorized"]
    assert await order.money() == (4999, 0, 1)


@pytest.mark.parametrize("_", range(5))
async def test_a_challenge_passed_while_another_card_is_sent_is_one_charge(order: Purchase, _: int) -> None:
    url = await challenged(order)
    _, paid = await asyncio.gather(order.authenticate(url), insist(lambda: order.authorize(GOOD, attempt=2)))
    assert paid.status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)
    assert await order.ledger() == ["authorize"]


@pytest.mark.parametrize("mode", ["reply_lost", "error_500_after"])
async def test_a_challenge_whose_reply_was_lost_is_found(order: Purchase, mode: str) -> None:
    await order.fault(mode, "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize(CARD)
    url = await insist(lambda: challenged(order))
    await order.authenticate(url)
    assert (await order.authorize(CARD)).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_the_second_of_two_challenges_whose_reply_was_lost_is_found(order: Purchase) -> None:
    await challenged(order)
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize(CARD, attempt=2)
    await order.authenticate(await challenged(order, attempt=2))
    assert (await order.authorize(CARD, attempt=2)).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_a_processor_that_is_away_while_the_shopper_is_at_it_makes_nothing_unknown(order: Purchase) -> None:
    url = await challenged(order)
    await order.fault("error_503", "retrieve")
    with pytest.raises(Unavailable) as raised:
        await order.authorize(CARD)
    assert not isinstance(raised.value, PaymentUnknown)
    assert (await order.authorize(CARD)).action_url == url


async def test_a_void_ends_the_challenge(order: Purchase) -> None:
    url = await challenged(order)
    await order.void()
    await order.authenticate(url)
    with pytest.raises(Conflict) as raised:
        await order.authorize(CARD)
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)


async def test_a_challenge_passed_just_before_the_void_is_let_go(order: Purchase) -> None:
    await order.authenticate(await challenged(order))
    assert (await order.void()).status is PaymentStatus.VOIDED
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() == ["authorize", "void"]


async def test_a_card_that_no_bank_lets_through_elsewhere_may_be_used_up_by_hand(order: Purchase) -> None:
    """Somebody closes the intent at the processor while the shopper is at the bank."""
    await challenged(order)
    intent = (await order.payment()).intent_id
    (await order.admin.post(f"/v1/payment_intents/{intent}/cancel", headers=KEY)).raise_for_status()
    with pytest.raises(Conflict) as raised:
        await order.authorize(CARD)
    assert raised.value.code == "payment_voided"
