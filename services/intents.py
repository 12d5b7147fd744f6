"""An order's payment intent at the processor: made, acted on, looked at, and believed only where it is right."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from loguru import logger

from core.db import Sessions
from models.errors import InvalidRequest, Unavailable
from models.payments import Payment
from models.types import Money
from services import payment_rows as rows
from services import processor_keys
from services.processor import (
    Intent,
    Processor,
    ProcessorMisconfigured,
    ProcessorUnavailable,
    RequestRefused,
)


class PaymentUnknown(Unavailable):
    """A card was tried and nobody can say yet what came of it. Ask again: the repeat finds out."""

    default_code = "payment_unknown"


class ProcessorMismatch(PaymentUnknown):
    """The processor answers for another amount, currency or order than was asked: not to be trusted."""

    default_code = "processor_mismatch"


async def make(sessions: Sessions, processor: Processor, order_id: UUID, amount: Money, key: str) -> str:
    """The id of the order's intent, not confirmed; a repeat learns the same one.

    Raises:
        ProcessorUnavailable: retryable; ProcessorMismatch likewise, when the answer is about other money.
        InvalidRequest: the processor takes no such amount (`amount_too_small`, `amount_too_large`).
    """
    try:
        intent = await processor.create(order_id, amount, key)
    except ProcessorUnavailable as error:
        if error.server_error:
            await processor_keys.note_key_error(sessions, order_id, processor_keys.INTENT)
        raise
    except RequestRefused as refused:
        if refused.code in ("amount_too_small", "amount_too_large"):
            raise InvalidRequest("The payment processor does not take this amount.", code=refused.code) from refused
        raise misconfigured("create", refused) from refused
    return (await _believed(processor, intent, order_id, amount, intent.id)).id


async def act_on(
    sessions: Sessions,
    processor: Processor,
    payment: Payment,
    operation: str,
    key: str,
    act: Callable[[str, str], Awaitable[Intent]],
) -> Intent:
    """Capture or cancel (`act`, given id and key); after a refusal or a 5xx, the intent as it is, for it may have
    happened all the same.

    Raises ProcessorUnavailable, retryable; ProcessorMismatch likewise, when the answer is about other money.
    """
    intent_id, order_id = payment.intent_id or "", payment.order_id
    try:
        intent = await act(intent_id, key)
    except (ProcessorUnavailable, RequestRefused) as error:
        if isinstance(error, ProcessorUnavailable) and not error.server_error:
            raise
        await processor_keys.note_key_error(sessions, order_id, operation)
        intent = await retrieve(processor, intent_id)
    return await _believed(processor, intent, order_id, rows.required_amount(payment), intent_id)


async def _believed(processor: Processor, answer: Intent, order_id: UUID, amount: Money, intent_id: str) -> Intent:
    """An answer about this order's money; else the intent as it is by now, for what a key was once answered is answered
    to every repeat of it, true or not. Raises ProcessorMismatch if that is about other money, too."""
    try:
        trust(answer, order_id, amount, intent_id)
    except ProcessorMismatch:
        answer = await retrieve(processor, intent_id)
        trust(answer, order_id, amount, intent_id)
    return answer


async def retrieve(processor: Processor, intent_id: str) -> Intent:
    """The intent as it is now, not yet held against anything."""
    try:
        return await processor.retrieve(intent_id)
    except RequestRefused as refused:
        raise misconfigured("retrieve", refused) from refused


def trust(intent: Intent, order_id: UUID, amount: Money, intent_id: str) -> None:
    """Believe an answer only if it is about this order's money. Raises ProcessorMismatch.

    A closed intent holds nothing, so its amount does not matter: a hold of a wrong amount can be let go.
    """
    good = (intent.id, intent.order_id) == (intent_id, str(order_id))
    if intent.status != "canceled":
        good = good and (intent.amount, intent.currency) == (amount.amount, amount.currency)
    if intent.status == "requires_capture":
        good = good and intent.amount_capturable == amount.amount
    if intent.status == "succeeded":
        good = good and intent.amount_received == amount.amount
    if not good:
        logger.error("The processor's answer for order {} does not match: {}, asked for {}", order_id, intent, amount)
        raise ProcessorMismatch("The processor's answer does not match this payment.")


def misconfigured(operation: str, refused: RequestRefused) -> ProcessorMisconfigured:
    """What to raise when the processor refuses a request that should be right: a person has to look at it."""
    logger.error("The processor refuses our {}: {}", operation, refused)
    return ProcessorMisconfigured("The payment processor does not accept our requests.")
