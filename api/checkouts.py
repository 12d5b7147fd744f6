"""From HTTP into Temporal: start a checkout, send it a card, cancel it, and wait a little for what comes of it."""

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from loguru import logger
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from core.telemetry import current_trace_id
from core.temporal import TemporalConnector
from models.errors import Conflict, MercatoError, Unavailable
from models.messages import CheckoutInput, CheckoutResult, StaffAction, UsePaymentMethod
from models.types import order_number
from workflows import options, steps
from workflows.checkout import CheckoutWorkflow

SHORTEST_WAIT = 0.05
WORD_SECONDS = 2.0  # for a message that must arrive, however little the caller wanted to wait
LATE = 0.1  # what the RPC's own deadline may be late by


@dataclass(frozen=True)
class Checkouts:
    """The way into Temporal, and how long a workflow task may be silent before another worker gets it."""

    temporal: TemporalConnector
    task_timeout: timedelta


async def start(through: Checkouts, checkout: CheckoutInput, wait: float) -> None:
    """Start the order's checkout, or join it, and wait at most `wait` seconds for its outcome (0: only start).

    Whoever calls reads the order's row afterwards; nothing is returned, so that no answer depends on a worker.

    Raises:
        Unavailable: Temporal cannot be reached; the order stands and is started by a repeat or by reconciliation.
    """
    client = await through.temporal.client()
    try:
        if wait < SHORTEST_WAIT:
            await client.start_workflow(CheckoutWorkflow.run, checkout, **_start_options(through, checkout))
            return
        operation = _start_operation(through, checkout)
        update = client.execute_update_with_start_workflow(
            CheckoutWorkflow.placed,
            start_workflow_operation=operation,
            id="placed",
            rpc_timeout=timedelta(seconds=wait),
        )
        await _within(wait, update, operation)
    except WorkflowAlreadyStartedError:
        return  # it has ended: the row says how
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
        return  # still going
    except WorkflowUpdateFailedError as error:
        logger.warning("placed was refused: {cause}", cause=str(error.cause))
    except RPCError as error:
        _raise_unless_late(error)


async def send_card(through: Checkouts, order_id: UUID, key: str, card: UsePaymentMethod, wait: float) -> bool:
    """Send another card to a waiting checkout; `key` names the request, a repeat of it is the same attempt.

    Returns whether it has been answered: if not, the order's row does not speak of this card yet.

    Raises:
        Conflict: `not_payable`, the checkout waits for no card.
        Unavailable: Temporal cannot be reached.
    """
    client = await through.temporal.client()
    handle = client.get_workflow_handle_for(CheckoutWorkflow.run, options.checkout_workflow_id(order_id))
    wait = max(wait, SHORTEST_WAIT)
    try:
        update = handle.execute_update(
            CheckoutWorkflow.use_payment_method,
            card,
            id=f"card-{hashlib.sha256(key.encode()).hexdigest()[:32]}",
            rpc_timeout=timedelta(seconds=wait),
        )
        await _within(wait, update)
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
        return False
    except WorkflowUpdateFailedError as error:
        raise _refusal_of(error, "not_payable") from error
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Conflict("the order waits for no card", code="not_payable") from error
        _raise_unless_late(error)
        return False
    return True


async def cancel(through: Checkouts, checkout: CheckoutInput, action: StaffAction, wait: float) -> None:
    """Cancel an order; one whose checkout was never started is started only to be undone.

    Raises:
        Conflict: `not_cancellable`, past the point of no return.
        Unavailable: Temporal cannot be reached.
    """
    client = await through.temporal.client()
    wait, operation = max(wait, SHORTEST_WAIT), _start_operation(through, checkout)
    try:
        update = client.execute_update_with_start_workflow(
            CheckoutWorkflow.cancel,
            action,
            start_workflow_operation=operation,
            id="cancel",
            rpc_timeout=timedelta(seconds=wait),
        )
        await _within(wait, update, operation)
    except WorkflowAlreadyStartedError:
        return  # it has ended meanwhile: the row says how
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
        await _leave_word(client, through, checkout, action)
    except WorkflowUpdateFailedError as error:
        raise _refusal_of(error, "not_cancellable") from error
    except RPCError as error:
        _raise_unless_late(error)
        await _leave_word(client, through, checkout, action)


async def _leave_word(client: Client, through: Checkouts, checkout: CheckoutInput, action: StaffAction) -> None:
    """An update that no worker has taken is kept in memory only, if it has arrived at all; a signal is written down."""
    signal = client.start_workflow(
        CheckoutWorkflow.run,
        checkout,
        start_signal="cancel_soon",
        start_signal_args=[action],
        rpc_timeout=timedelta(seconds=WORD_SECONDS),
        **_start_options(through, checkout),
    )
    try:
        await _within(WORD_SECONDS, signal)
    except WorkflowAlreadyStartedError:
        return  # it has ended meanwhile: the row says how
    except (RPCError, TimeoutError) as error:
        raise Unavailable("Temporal does not answer") from error


async def _within(
    wait: float,
    update: Coroutine[Any, Any, object],
    operation: "WithStartWorkflowOperation[CheckoutWorkflow, CheckoutResult] | None" = None,
) -> None:
    """Wait for the update, `wait` seconds in all: the deadline of the RPC counts for each of the client's attempts."""
    try:
        async with asyncio.timeout(wait + LATE):
            await update
    except Exception:
        if operation is not None:
            # the failed start is kept in the operation as well, and asyncio logs what nobody has looked at; after our
            # own timeout that is a CancelledError, which is nobody's wish to end this request
            with contextlib.suppress(Exception, asyncio.CancelledError):
                async with asyncio.timeout(0):
                    await operation.workflow_handle()
        raise


def _start_operation(
    through: Checkouts, checkout: CheckoutInput
) -> "WithStartWorkflowOperation[CheckoutWorkflow, CheckoutResult]":
    return WithStartWorkflowOperation(CheckoutWorkflow.run, checkout, **_start_options(through, checkout))


def _start_options(through: Checkouts, checkout: CheckoutInput) -> dict[str, Any]:
    """One checkout an order, ever: a running one is joined, an ended one is not started again."""
    return {
        "id": options.checkout_workflow_id(checkout.order_id),
        "task_queue": options.TASK_QUEUE,
        "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
        "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
        "search_attributes": _attributes(checkout),
        "static_summary": f"Order {order_number(checkout.order_id)}",
        "task_timeout": through.task_timeout,
        "memo": _memo(),
    }


def _memo() -> dict[str, str]:
    """The trace that began it, for whoever finds the order in the UI."""
    trace_id = current_trace_id()
    return {"traceId": trace_id} if trace_id else {}


def _attributes(checkout: CheckoutInput) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(steps.ORDER_STATUS, "pending"),
            SearchAttributePair(steps.CUSTOMER_ID, str(checkout.customer_id)),
            SearchAttributePair(steps.NEEDS_ATTENTION, False),
        ]
    )


def _refusal_of(error: WorkflowUpdateFailedError, code: str) -> MercatoError:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return Conflict(cause.message, code=code)
    return Conflict("the order has moved on", code=code)


def _raise_unless_late(error: RPCError) -> None:
    """A deadline is only late: the request may have been taken. Anything else means that Temporal is not there."""
    if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
        return
    raise Unavailable("Temporal does not answer") from error
