"""Money is taken or given back once, also when both are asked for at once: on a real database, a real processor."""

import asyncio
from typing import Any

import pytest

from models.errors import Conflict, Unavailable
from models.types import PaymentStatus
from services import intents
from services import payment_records as records
from services.intents import PaymentUnknown, ProcessorMismatch
from services.processor import Intent, Processor
from tests.services.paying import BAD, GOOD, KEY, Purchase, insist, is_held, until, was_sent

CAPTURED, VOIDED, NONE = PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.NONE


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


async def test_a_capture_is_looked_at_when_its_answer_cannot_be_right(order: Purchase) -> None:
    """Its key brings the same answer for ever."""
    await order.authorize()
    await order.fault("wrong_amount", "capture")
    assert (await order.capture()).status is CAPTURED
    assert await order.money() == (0, 4999, 1)


# --- void ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "reply_lost", "error_500_after", "error_500_stored", "error_429", "silent"])
async def test_void_gives_back_whatis_held_once(order: Purchase, mode: str | None) -> None:
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


async def test_what_the_processor_has_let_go_of_is_never_booked_as_taken(order: Purchase) -> None:
    await order.authorize()
    await order.void()
    with pytest.raises(Conflict) as refused:
        await records.note_captured(order.sessions, order.order_id, "ch_of_another_world")
    assert refused.value.code == "payment_voided"
    assert await order.ledger() == ["authorize", "void"]


async def test_void_finds_a_capture_whose_reply_was_lost(order: Purchase) -> None:
    await order.authorize()
    await order.fault("reply_lost", "capture")
    with pytest.raises(Unavailable):
        await order.capture()
    with pytest.raises(Conflict):
        await order.void()
    assert await order.status() == "captured"
    assert await order.ledger() == ["authorize", "capture"]


async def test_a_void_overtakes_a_confirm_that_is_still_on_its_way(order: Purchase, patient_gateway: Processor) -> None:
    order.processor = patient_gateway
    await order.fault("latency", "confirm", seconds=1)
    late = asyncio.create_task(order.authorize())
    await until(lambda: was_sent(order))
    assert (await insist(order.void)).status is NONE
    with pytest.raises(Conflict) as raised:
        await late
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)


async def test_a_void_gives_back_what_a_confirm_under_way_has_just_held(
    order: Purchase, patient_gateway: Processor
) -> None:
    order.processor = patient_gateway
    await order.fault("latency_after", "confirm", seconds=1)
    late = asyncio.create_task(order.authorize())
    await until(lambda: is_held(order))
    assert (await insist(order.void)).status is VOIDED
    with pytest.raises(Conflict) as raised:
        await late
    assert raised.value.code == "payment_voided"
    assert await order.money() == (0, 0, 0)
    assert await order.ledger() == ["authorize", "void"]


async def test_a_confirm_under_way_lets_go_itself_when_the_void_could_not(
    order: Purchase, patient_gateway: Processor
) -> None:
    order.processor = patient_gateway
    await order.faults(
        {"mode": "latency_after", "operations": ["confirm"], "seconds": 1},
        {"mode": "error_503", "operations": ["cancel"]},
    )
    late = asyncio.create_task(order.authorize())
    await until(lambda: is_held(order))
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


async def test_no_card_is_tried_once_a_void_was_asked_for(order: Purchase) -> None:
    """The attempt was opened before, and its confirm is about to be sent."""
    await records.open_attempt(order.sessions, order.order_id, 1, order.amount, GOOD)
    await records.request_void(order.sessions, order.order_id)
    assert await records.begin_try(order.sessions, order.order_id, 1, f"pi_{order.order_id}") is None


@pytest.mark.parametrize("said", [{"currency": "USD"}, {"amount": 5000}, {"amount_capturable": 5000}])
def test_an_answer_about_other_money_is_not_believed(order: Purchase, said: dict[str, Any]) -> None:
    told = {"amount": 4999, "currency": "EUR", "amount_capturable": 4999, "amount_received": 0, **said}
    intent = Intent("pi_1", "requires_capture", order_id=str(order.order_id), latest_charge=None, **told)
    with pytest.raises(ProcessorMismatch):
        intents.trust(intent, order.order_id, order.amount, "pi_1")
