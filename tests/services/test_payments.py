"""Money is held, taken and given back once, whatever the processor does: on a real database, a real processor."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from pydantic import SecretStr

from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.errors import Conflict, InvalidRequest, Unavailable
from models.types import Money, PaymentStatus, Service
from services import payments
from services.payments import PaymentUnknown, ProcessorMismatch
from services.processor import Processor, ProcessorMisconfigured
from tests.services.paying import BAD, GOOD, KEY, Purchase, insist, until

AUTHORIZED, DECLINED, UNKNOWN = PaymentStatus.AUTHORIZED, PaymentStatus.DECLINED, PaymentStatus.UNKNOWN
CAPTURED, VOIDED, NONE = PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.NONE


@pytest.fixture(scope="module")
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(Settings(database_url=database_url).service_database_url(Service.PAYMENTS))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture(scope="module")
async def gateway(processor_url: str) -> AsyncIterator[Processor]:
    gateway = Processor(Settings(processor_url=processor_url, processor_timeout_seconds=1))
    yield gateway
    await gateway.aclose()


@pytest.fixture(scope="module")
async def patient(processor_url: str) -> AsyncIterator[Processor]:
    """Waits longer than the faults of these tests last."""
    gateway = Processor(Settings(processor_url=processor_url, processor_timeout_seconds=5))
    yield gateway
    await gateway.aclose()


@pytest.fixture(scope="module")
async def admin(processor_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=processor_url) as client:
        yield client


@pytest.fixture
def new(sessions: Sessions, gateway: Processor, admin: httpx.AsyncClient) -> Callable[[], Purchase]:
    return lambda: Purchase(sessions, gateway, admin)


@pytest.fixture
def order(new: Callable[[], Purchase]) -> Purchase:
    return new()


async def test_a_good_card_holds_the_money_and_capture_takes_it(order: Purchase) -> None:
    held = await order.authorize()
    assert (held.status, held.attempt, held.amount) == (AUTHORIZED, 1, order.amount)
    assert await order.money() == (4999, 0, 1)
    taken = await order.capture()
    assert (taken.status, taken.intent_id, taken.amount) == (CAPTURED, held.intent_id, order.amount)
    assert await order.money() == (0, 4999, 1)
    assert await order.status() == "captured"
    assert await order.ledger() == ["authorize", "capture"]


async def test_repeats_answer_from_the_rows_without_the_network(order: Purchase, sessions: Sessions) -> None:
    nobody = Processor(Settings(processor_url="http://127.0.0.1:1"))
    deaf = Purchase(sessions, nobody, order.admin, order.amount, order.order_id)
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
        ("pm_card_authenticationRequired", "authentication_required"),
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


async def test_a_second_card_does_not_charge_what_is_held_already(order: Purchase) -> None:
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
    await until(lambda: _is_held(order))
    assert (await order.authorize()).status is AUTHORIZED
    assert await order.money() == (4999, 0, 1)


async def test_two_authorizations_at_once_hold_the_money_once(new: Callable[[], Purchase]) -> None:
    for _ in range(5):
        order = new()
        results = await asyncio.gather(*(insist(order.authorize, times=200) for _ in range(4)))
        assert {result.status for result in results} == {AUTHORIZED}
        assert await order.money() == (4999, 0, 1)
        assert await order.ledger() == ["authorize"]
        assert await order.status() == "authorized"


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


# --- capture -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["reply_lost", "error_500_after", "error_500_stored", "error_500", "drop", "error_429"]
)
async def test_a_capture_that_went_wrong_takes_the_money_once(order: Purchase, mode: str) -> None:
    await order.authorize()
    await order.fault(mode, "capture")
    assert (await insist(order.capture)).status is CAPTURED
    assert await order.money() == (0, 4999, 1)
    assert await order.ledger() == ["authorize", "capture"]


async def test_captures_at_once_take_the_money_once(order: Purchase) -> None:
    await order.authorize()
    results = await asyncio.gather(*(insist(order.capture, times=200) for _ in range(4)))
    assert {result.status for result in results} == {CAPTURED}
    assert await order.money() == (0, 4999, 1)
    assert await order.ledger() == ["authorize", "capture"]


async def test_nothing_held_cannot_be_captured(order: Purchase) -> None:
    with pytest.raises(Conflict) as raised:
        await order.capture()
    assert raised.value.code == "not_authorized"
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    with pytest.raises(PaymentUnknown):
        await order.capture()


async def test_a_hold_that_lapsed_at_the_processor_is_booked_as_let_go(order: Purchase) -> None:
    intent_id = (await order.authorize()).intent_id
    (await order.admin.post(f"/v1/payment_intents/{intent_id}/cancel", headers=KEY)).raise_for_status()
    with pytest.raises(Conflict) as raised:
        await order.capture()
    assert raised.value.code == "payment_voided"
    assert await order.ledger() == ["authorize", "void"]


async def test_a_capture_of_another_amount_is_not_booked(order: Purchase) -> None:
    path = f"/v1/payment_intents/{(await order.authorize()).intent_id}/capture"
    (await order.admin.post(path, data={"amount_to_capture": "100"}, headers=KEY)).raise_for_status()
    with pytest.raises(ProcessorMismatch):
        await order.capture()
    assert await order.ledger() == ["authorize"]


# --- void ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "reply_lost", "error_500_after", "error_500_stored", "error_429", "silent"])
async def test_void_gives_back_what_is_held_once(order: Purchase, mode: str | None) -> None:
    await order.authorize()
    if mode:
        await order.fault(mode, "cancel", seconds=3)
    voiding = await insist(order.void)
    assert voiding.status is VOIDED
    assert await order.void() == voiding
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() == ["authorize", "void"]
    assert await order.status() == "voided"


async def test_voids_at_once_give_back_once(order: Purchase) -> None:
    await order.authorize()
    results = await asyncio.gather(*(insist(order.void, times=200) for _ in range(4)))
    assert {result.status for result in results} == {VOIDED}
    assert await order.ledger() == ["authorize", "void"]


async def test_void_of_what_never_began_leaves_a_tombstone(order: Purchase) -> None:
    assert (await order.void()).status is NONE
    assert (await order.void()).status is NONE
    with pytest.raises(Conflict) as raised:
        await order.authorize()
    assert (raised.value.code, raised.value.retryable) == ("payment_voided", False)
    assert await order.books() == []


async def test_void_after_a_decline_has_nothing_to_give_back_and_closes_the_intent(order: Purchase) -> None:
    await order.authorize(BAD)
    assert (await order.void()).status is NONE
    assert [item["status"] for item in await order.books()] == ["canceled"]
    with pytest.raises(Conflict):
        await order.authorize(GOOD, attempt=2)
    assert await order.money() == (0, 0, 0)


async def test_void_of_an_unknown_hold_books_it_and_gives_it_back(order: Purchase) -> None:
    await order.fault("reply_lost", "confirm")
    with pytest.raises(PaymentUnknown):
        await order.authorize()
    assert await order.money() == (4999, 0, 1)
    assert (await order.void()).status is VOIDED
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() == ["authorize", "void"]


async def test_void_finds_an_intent_whose_making_was_not_heard_of(order: Purchase) -> None:
    await order.fault("reply_lost", "create")
    with pytest.raises(Unavailable):
        await order.authorize()
    assert (await order.void()).status is NONE
    assert [item["status"] for item in await order.books()] == ["canceled"]


async def test_void_after_capture_is_refused(order: Purchase) -> None:
    await order.authorize()
    await order.capture()
    with pytest.raises(Conflict) as raised:
        await order.void()
    assert raised.value.code == "already_captured"
    assert await order.money() == (0, 4999, 1)


async def test_void_finds_a_capture_whose_reply_was_lost(order: Purchase) -> None:
    await order.authorize()
    await order.fault("reply_lost", "capture")
    with pytest.raises(Unavailable):
        await order.capture()
    with pytest.raises(Conflict):
        await order.void()
    assert await order.status() == "captured"
    assert await order.ledger() == ["authorize", "capture"]


async def test_a_void_overtakes_a_confirm_that_is_still_on_its_way(order: Purchase, patient: Processor) -> None:
    order.processor = patient
    await order.fault("latency", "confirm", seconds=1)
    late = asyncio.create_task(order.authorize())
    await until(lambda: _was_sent(order))
    assert (await insist(order.void)).status is NONE
    with pytest.raises(Conflict) as raised:
        await late
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)


async def test_a_void_gives_back_what_a_confirm_under_way_has_just_held(order: Purchase, patient: Processor) -> None:
    order.processor = patient
    await order.fault("latency_after", "confirm", seconds=1)
    late = asyncio.create_task(order.authorize())
    await until(lambda: _is_held(order))
    assert (await insist(order.void)).status is VOIDED
    with pytest.raises(Conflict) as raised:
        await late
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() == ["authorize", "void"]


async def test_a_confirm_under_way_lets_go_itself_when_the_void_could_not(order: Purchase, patient: Processor) -> None:
    order.processor = patient
    await order.faults(
        {"mode": "latency_after", "operations": ["confirm"], "seconds": 1},
        {"mode": "error_503", "operations": ["cancel"]},
    )
    late = asyncio.create_task(order.authorize())
    await until(lambda: _is_held(order))
    with pytest.raises(Unavailable):
        await order.void()
    assert await order.money() == (4999, 0, 1)
    with pytest.raises(Conflict) as raised:
        await late
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() == ["authorize", "void"]


async def test_a_void_that_failed_half_way_is_finished_by_the_late_authorization(order: Purchase) -> None:
    await order.authorize()
    await order.fault("error_503", "cancel", "retrieve", times=2)
    with pytest.raises(Unavailable):
        await order.void()
    assert await order.money() == (4999, 0, 1)
    with pytest.raises(Conflict) as raised:
        await insist(order.authorize)
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)


@pytest.mark.parametrize("seed", range(10))
async def test_authorize_and_void_at_once_leave_nothing_held(order: Purchase, seed: int) -> None:
    async def authorize() -> None:
        try:
            await insist(order.authorize, times=200)
        except Conflict as error:
            if error.code != "payment_voided":
                raise

    async def void() -> None:
        await asyncio.sleep(seed * 0.006)  # another moment of the authorization each time
        await insist(order.void, times=200)

    await asyncio.gather(authorize(), void())
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() in ([], ["authorize", "void"])


# --- attempts ------------------------------------------------------------------------------------------------------


async def test_a_payment_request_keeps_its_number(order: Purchase, sessions: Sessions) -> None:
    await order.authorize(BAD)

    async def number(key: str) -> int:
        async with sessions.begin() as session:
            return await payments.next_attempt(session, order.order_id, key, GOOD)

    assert [await number(key) for key in ("first", "second", "first")] == [2, 3, 2]
    assert (await asyncio.gather(*(number("third") for _ in range(5)))) == [4] * 5
    held = await order.authorize(GOOD, attempt=2)
    assert (held.status, held.attempt) == (AUTHORIZED, 2)


async def _is_held(order: Purchase) -> bool:
    return (await order.money())[0] > 0


async def _was_sent(order: Purchase) -> bool:
    attempts = await order.attempts()
    return bool(attempts) and attempts[0].tries > 0
