"""What a broken step leaves in a history is readable, and holds nothing of the shopper's."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from models.errors import Conflict, Unavailable
from workers.errors import ErrorInterceptor, order_of


class _Raises(ActivityInboundInterceptor):
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        raise self._error


async def failure_of(error: Exception) -> ApplicationError:
    """What the interceptor makes of `error`."""
    inbound = ErrorInterceptor().intercept_activity(_Raises(error))

    @activity.defn
    async def step() -> Any:
        return await inbound.execute_activity(ExecuteActivityInput(fn=step, args=[], executor=None, headers={}))

    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(step)
    return raised.value


async def test_a_database_error_is_told_without_its_statement() -> None:
    cause = ConnectionRefusedError("connection refused")
    error = OperationalError("INSERT INTO orders VALUES ('ann@example.com')", {"email": "ann@example.com"}, cause)
    failure = await failure_of(error)
    assert failure.message == "ConnectionRefusedError: connection refused"
    assert failure.__cause__ is None
    assert not failure.non_retryable


async def test_a_refusal_is_not_retried_and_an_outage_is() -> None:
    refused = await failure_of(Conflict("no", code="payment_voided"))
    assert (refused.type, refused.non_retryable) == ("payment_voided", True)
    down = await failure_of(Unavailable("the processor does not answer"))
    assert (down.type, down.non_retryable) == ("dependency_unavailable", False)


def test_the_order_of_a_workflow_id() -> None:
    assert order_of("checkout-42") == order_of("repair-42") == "42"
    assert order_of("reconciliation") is None
