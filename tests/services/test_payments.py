"""Money is held once, whatever the processor does: on a real database, a real processor."""

import asyncio
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from core.db import Sessions
from core.settings import Settings
from models.errors import Conflict, InvalidRequest, Unavailable
from models.types import Money, PaymentStatus
from services import payment_records as records
from services import payment_rows as rows
from services import payments
from services.intents import PaymentUnknown, ProcessorMismatch
from services.processor import Processor, ProcessorMisconfigured
from tests.services.paying import BAD, GOOD, KEY, Purchase, insist, is_held, until
from tests.services.racing import somebody_waits_for

AUTHORIZED, DECLINED, CAPTURED = PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.CAPTURED
VOIDED, NONE = PaymentStatus.VOIDED, PaymentStatus.NONE


async def test_a_good_card_holds_the_money_and_capture_takes_it(order: Purchase) -> None:
    held = await order.authorize()
    assert (held.status, held.attempt, held.amount) == (AUTHORIZED, 1, order.amount)
    assert await order.money() == (4999, 0, 1)
    taken = await order.capture()
    assert (taken.status, taken.intent_id, taken.amount) == (CAPTURED, held.intent_id, order.amount)
    assert await order.money() == (0, 4999, 1)
    assert await order.status() == "captured"
    assert await order.ledger() == ["authorize", "capture"]


async def test_repeats_answer_from_the_rows_without_the_network(order: Purchase, payment_sessions: Sessions) -> None:
    nobody = Processor(Settings(processor_url="http://127.0.0.1:1"))
    deaf = Purchase(payment_sessions, nobody, order.admin, order.amount, order.order_id)
    first = await order.authorize()
    assert await deaf.authorize() == first
    taken = await order.capture()
    assert await deaf.capture() == taken
    assert await deaf.authorize() == first
    await nobody.aclose()


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error"),
        ("pm_card_chargeDeclinedLostCard", "lost_card"),
        ("pm_card_chargeDeclinedStolenCard", "stolen_card"),
        ("pm_card_there_is_no_such_card", "invalid_payment_method"),
    ],
)
async def test_a_declined_card_says_why_and_the_same_intent_takes_another(
    order: Purchase, card: str, code: str
) -> None:
    declined = await order.authorize(card)
    assert (declined.status, declined.attempt, declined.decline_code) == (DECLINED, 1, code)
    assert await order.status() == "declined"
    assert await order.authorize(card) == declined
    assert await order.money() == (0, 0, 0)
    held = await order.authorize(GOOD, attempt=2)
    assert (held.status, held.attempt, held.intent_id) == (AUTHORIZED, 2, declined.intent_id)
    assert len(await order.books()) == 1
    assert await order.money() == (4999, 0, 1)
    assert await order.ledger() == ["authorize"]


async def test_a_second_card_does_not_charge_whatis_held_already(order: Purchase) -> None:
    first = await order.authorize()
    assert await order.authorize("pm_card_mastercard", attempt=2) == first
    await order.capture()
    assert (await order.authorize("pm_card_mastercard", attempt=3)).status is AUTHORIZED
    assert await order.money() == (0, 4999, 1)


@pytest.mark.parametrize("mode", ["reply_lost", "error_500_after"])
async def test_a_charge_whose_reply_was_lost_is_found_and_not_repeated(order: Purchase, mode: str) -> None:
    await order.fault(mode, "confirm")
    with pytest.raises(PaymentUnknown) as raised:
        await order.authorize()
    assert raised.value.retryable
    assert await order.status() == "unknown"
    assert [attempt.state for attempt in await order.attempts()] == ["unknown"]
    assert (await order.authorize()).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)
    assert [(attempt.state, attempt.tries) for attempt in await order.attempts()] == [("authorized", 1)]


@pytest.mark.parametrize(
    "mode", ["drop", "silent", "error_500", "error_502", "error_503", "error_429", "error_500_stored"]
)
async def test_no_certain_answer_is_never_a_decline(order: Purchase, mode: str) -> None:
    await order.fault(mode, "confirm", seconds=3)
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    assert await order.status() == "unknown"
    assert (await insist(order.authorize)).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)
    assert await order.ledger() == ["authorize"]


async def test_a_stored_500_is_left_behind_by_a_fresh_key_noted_before_use(order: Purchase) -> None:
    await order.fault("error_500_stored", "confirm")
    assert (await insist(order.authorize)).status is AUTHORIZED
    [attempt] = await order.attempts()
    assert attempt.confirm_key == f"{order.order_id}:authorize:1:1"
    assert await order.money() == (4999, 0, 1)


async def test_a_decline_whose_reply_was_lost_is_found(order: Purchase) -> None:
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize(BAD)
    declined = await order.authorize(BAD)
    assert (declined.status, declined.decline_code) == (DECLINED, "generic_decline")
    assert [item["attempts"] for item in await order.books()] == [1]


async def test_an_earlier_decline_is_not_taken_for_the_answer_of_a_later_card(order: Purchase) -> None:
    await order.authorize(BAD)
    await order.fault("drop", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize(GOOD, attempt=2)
    assert (await order.authorize(GOOD, attempt=2)).status is AUTHORIZED


async def test_a_new_card_while_the_first_is_unknown_finds_the_first_one_s_hold(order: Purchase) -> None:
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    held = await order.authorize("pm_card_mastercard", attempt=2)
    assert (held.status, held.attempt) == (AUTHORIZED, 1)
    assert await order.money() == (4999, 0, 1)


async def test_while_the_processor_stays_down_the_payment_stays_unknown(order: Purchase) -> None:
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    await order.fault("error_503", "retrieve", times=None)
    for _ in range(3):
        with pytest.raises(PaymentUnknown):
            await order.authorize()
    assert await order.status() == "unknown"
    await order.heal()
    assert (await order.authorize()).status is AUTHORIZED


@pytest.mark.parametrize("mode", ["reply_lost", "error_500_after", "error_500_stored", "error_429", "silent"])
async def test_an_intent_that_could_not_be_made_is_made_later_and_no_card_was_tried(order: Purchase, mode: str) -> None:
    await order.fault(mode, "create", seconds=3)
    with pytest.raises(Unavailable):
        await order.authorize()
    assert await order.status() == "none"
    assert (await insist(order.authorize)).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_a_key_in_flight_is_asked_again(order: Purchase) -> None:
    await order.fault("latency_in_flight", "confirm", seconds=2)
    with pytest.raises(PaymentUnknown):  # our patience ends after one second, theirs goes on
        await order.authorize()
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    await until(lambda: is_held(order))
    assert (await order.authorize()).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_two_authorizations_at_once_hold_the_money_once(new_purchase: Callable[[], Purchase]) -> None:
    for _ in range(5):
        order = new_purchase()
        results = await asyncio.gather(*(insist(order.authorize, times=200) for _ in range(4)))
        assert {result.status for result in results} == {AUTHORIZED}
        assert await order.money() == (4999, 0, 1)
        assert await order.ledger() == ["authorize"]
        assert await order.status() == "authorized"


async def test_a_hold_that_waits_supersedes_the_card_tried_meanwhile(order: Purchase) -> None:
    for attempt in (1, 2):
        await records.open_attempt(order.sessions, order.order_id, attempt, order.amount, GOOD)
    await records.begin_try(order.sessions, order.order_id, 1, f"pi_{order.order_id}")
    async with order.sessions.begin() as second:  # as `begin_try` does
        await rows.lock(second, order.order_id)
        (await rows.attempts_of(second, order.order_id))[1].tries += 1
        await second.flush()
        holding = asyncio.create_task(records.note_authorized(order.sessions, order.order_id, 1, "ch_1"))
        await somebody_waits_for(second, order.sessions)
    await holding
    assert [(one.state, one.decline_code) for one in await order.attempts()] == [
        ("authorized", None),
        ("declined", "superseded"),
    ]
    assert await order.ledger() == ["authorize"]


async def test_the_amount_and_the_card_of_an_attempt_are_fixed(order: Purchase) -> None:
    await order.authorize(BAD)
    with pytest.raises(Conflict) as raised:
        await order.authorize(GOOD)
    assert raised.value.code == "payment_method_changed"
    order.amount = Money(amount=5000)
    with pytest.raises(Conflict) as raised:
        await order.authorize(GOOD, attempt=2)
    assert raised.value.code == "payment_amount_changed"


async def test_an_answer_about_another_amount_is_not_trusted_but_can_be_given_back(order: Purchase) -> None:
    intent_id = (await order.authorize(BAD)).intent_id
    changed = await order.admin.post(f"/v1/payment_intents/{intent_id}", data={"amount": "9900"}, headers=KEY)
    assert changed.status_code == 200
    with pytest.raises(ProcessorMismatch):
        await order.authorize(GOOD, attempt=2)
    with pytest.raises(ProcessorMismatch):
        await order.authorize(GOOD, attempt=2)
    assert await order.status() == "unknown"
    assert await order.ledger() == []
    assert (await order.void()).status is VOIDED
    assert await order.money() == (0, 0, 0)


@pytest.mark.parametrize("faults", [["create"], ["create", "retrieve"]], ids=" and ".join)
async def test_an_intent_is_looked_at_when_the_answer_to_its_making_cannot_be_right(
    order: Purchase, faults: list[str]
) -> None:
    """Its key brings the same answer for ever, and no card would ever be tried."""
    await order.faults(*({"mode": "wrong_amount", "operations": [operation]} for operation in faults))
    for _ in faults[1:]:
        with pytest.raises(ProcessorMismatch):
            await order.authorize()
    assert (await order.authorize()).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_an_amount_that_the_processor_does_not_take_is_refused(order: Purchase) -> None:
    order.amount = Money(amount=10)
    with pytest.raises(InvalidRequest) as raised:
        await order.authorize()
    assert raised.value.code == "amount_too_small"
    assert (await order.void()).status is NONE


async def test_a_wrong_key_is_an_outage_and_no_decline(order: Purchase, processor_url: str) -> None:
    wrong = Processor(Settings(processor_url=processor_url, processor_api_key=SecretStr("no key")))
    order.processor = wrong
    with pytest.raises(ProcessorMisconfigured) as raised:
        await order.authorize()
    assert raised.value.retryable
    assert await order.status() == "none"
    await wrong.aclose()


def test_a_gateway_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="MERCATO_PROCESSOR_URL"):
        Processor(Settings())


# --- attempts ------------------------------------------------------------------------------------------------------


async def test_a_payment_request_keeps_its_number(order: Purchase, payment_sessions: Sessions) -> None:
    await order.authorize(BAD)

    async def number(key: str) -> int:
        async with payment_sessions.begin() as session:
            return await payments.next_attempt(session, order.order_id, key, GOOD)

    assert [await number(key) for key in ("first", "second", "first")] == [2, 3, 2]
    assert (await asyncio.gather(*(number("third") for _ in range(5)))) == [4] * 5
    held = await order.authorize(GOOD, attempt=2)
    assert (held.status, held.attempt) == (AUTHORIZED, 2)


async def test_a_card_that_comes_after_the_void_has_no_number(order: Purchase, payment_sessions: Sessions) -> None:
    """It would be an attempt that nobody ever answers."""
    await order.authorize(BAD)
    async with payment_sessions.begin() as session:
        await payments.next_attempt(session, order.order_id, "first", GOOD)
    await order.void()
    with pytest.raises(Conflict) as refused:
        async with payment_sessions.begin() as session:
            await payments.next_attempt(session, order.order_id, "second", GOOD)
    assert refused.value.code == "payment_voided"
    async with payment_sessions.begin() as session:
        assert await payments.next_attempt(session, order.order_id, "first", GOOD) == 2
