"""From HTTP into Temporal: start a checkout, send it a card, cancel it, and wait a little for what comes of it."""

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from loguru import logger
from temporalio.client import (
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
from models.messages import CheckoutInput, FulfilmentInput, RunOfOrder, StaffAction, UsePaymentMethod
from models.types import OrderStatus, order_number
from workflows import options, steps
from workflows.checkout import CheckoutWorkflow
from workflows.fulfilment import FulfilmentWorkflow

SHORTEST_WAIT = 0.05
MEND_SECONDS = 10.0
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
        operation = WithStartWorkflowOperation(CheckoutWorkflow.run, checkout, **_start_options(through, checkout))
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


async def cancel(through: Checkouts, checkout: CheckoutInput, action: StaffAction, wait: float, *, word: bool) -> bool:
    """Cancel an order that is not sold; one whose checkout was never started is started only to be undone.

    `word`: leave the wish as a signal if nobody takes it in time. False: the order is past the point of no return.

    Raises:
        Unavailable: Temporal cannot be reached.
    """
    operation = WithStartWorkflowOperation(CheckoutWorkflow.run, checkout, **_start_options(through, checkout))
    taken = await _cancel(through, CheckoutWorkflow.cancel, operation, action, wait)
    if taken is None and word:
        await _leave_word(through, CheckoutWorkflow.run, checkout, action, _start_options(through, checkout))
    return taken is not False


async def cancel_sold(
    through: Checkouts, order: FulfilmentInput, action: StaffAction, wait: float, *, word: bool
) -> None:
    """Cancel a sold order: refund it, put its stock back. Whatever comes of it in `wait` seconds is in the order's row.

    Raises:
        Unavailable: Temporal cannot be reached.
    """
    start = _fulfilment_options(through, order)
    operation = WithStartWorkflowOperation(FulfilmentWorkflow.run, order, **start)
    taken = await _cancel(through, FulfilmentWorkflow.cancel, operation, action, wait)
    if taken is None and word:
        await _leave_word(through, FulfilmentWorkflow.run, order, action, start)


async def mend(through: Checkouts, order_id: UUID, what: Literal["retry", "resolve"], action: StaffAction) -> None:
    """Send staff's update to the run of the order in which something stands still.

    Raises:
        Conflict: nothing stands still, or the run refuses.
        Unavailable: Temporal cannot be reached.
    """
    client = await through.temporal.client()
    refusal: MercatoError = Conflict("no run of this order is open", code=f"nothing_to_{what}")
    for workflow_id in options.runs_of(order_id):
        try:
            async with asyncio.timeout(MEND_SECONDS):
                await client.get_workflow_handle(workflow_id).execute_update(what, action)
            return
        except WorkflowUpdateFailedError as error:
            refusal = _refusal_of(error, f"nothing_to_{what}")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise Unavailable("Temporal does not answer") from error
        except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError) as error:
            raise Unavailable("no worker has taken it yet") from error
    raise refusal


async def _cancel(
    through: Checkouts, update: Any, operation: WithStartWorkflowOperation[Any, Any], action: StaffAction, wait: float
) -> bool | None:
    """True: carried out, or about to be. False: this run cannot any more. None: nobody has taken it in time."""
    client = await through.temporal.client()
    wait = max(wait, SHORTEST_WAIT)
    try:
        cancelling = client.execute_update_with_start_workflow(
            update, action, start_workflow_operation=operation, id="cancel", rpc_timeout=timedelta(seconds=wait)
        )
        await _within(wait, cancelling, operation)
    except WorkflowAlreadyStartedError:
        return True  # it has ended meanwhile: the row says how
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
        return None
    except WorkflowUpdateFailedError as error:
        return isinstance(error.cause, ApplicationError) and error.cause.type == "already_cancelling"
    except RPCError as error:
        _raise_unless_late(error)
        return None
    return True


async def _leave_word(through: Checkouts, run: Any, order: Any, action: StaffAction, start: dict[str, Any]) -> None:
    """An update that no worker has taken is kept in memory only, if it has arrived at all; a signal is written down."""
    client = await through.temporal.client()
    signal = client.start_workflow(
        run,
        order,
        start_signal="cancel_soon",
        start_signal_args=[action],
        rpc_timeout=timedelta(seconds=WORD_SECONDS),
        **start,
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
    operation: WithStartWorkflowOperation[Any, Any] | None = None,
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


def _start_options(through: Checkouts, checkout: CheckoutInput) -> dict[str, Any]:
    """One checkout an order, ever: a running one is joined, an ended one is not started again."""
    return {
        "id": options.checkout_workflow_id(checkout.order_id),
        "task_queue": options.TASK_QUEUE,
        "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
        "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
        "search_attributes": _attributes(checkout, OrderStatus.PENDING),
        "static_summary": f"Order {order_number(checkout.order_id)}",
        "task_timeout": through.task_timeout,
        "memo": _memo(),
    }


def _fulfilment_options(through: Checkouts, order: FulfilmentInput) -> dict[str, Any]:
    """One at a time; one that was ended from outside may be started again, one that came to its end may not."""
    return {
        "id": options.fulfilment_workflow_id(order.order_id),
        "task_queue": options.TASK_QUEUE,
        "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
        "id_reuse_policy": WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        "search_attributes": _attributes(order, OrderStatus.CONFIRMED),
        "static_summary": f"Cancel of order {order_number(order.order_id)}",
        "task_timeout": through.task_timeout,
        "memo": _memo(),
    }


def _memo() -> dict[str, str]:
    """The trace that began it, for whoever finds the order in the UI."""
    trace_id = current_trace_id()
    return {"traceId": trace_id} if trace_id else {}


def _attributes(order: RunOfOrder, status: OrderStatus) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(steps.ORDER_STATUS, status.value),
            SearchAttributePair(steps.CUSTOMER_ID, str(order.customer_id)),
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
