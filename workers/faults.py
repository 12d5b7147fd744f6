"""Faults on purpose at the steps of a worker: see core.faults. Installed outside production only."""

from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from core.db import Sessions
from core.faults import CustomerOf, Switchboard
from models.errors import NotFound
from services import orders
from workers.errors import order_of


class FaultInterceptor(Interceptor):
    """Asks the switchboard before each step's effect, and after it.

    "After" is after the effect and before its report, where only idempotency helps.
    """

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Faulty(next, self._switchboard)


class _Faulty(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, switchboard: Switchboard) -> None:
        super().__init__(next)
        self._switchboard = switchboard

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        order_id = _uuid(order_of(info.workflow_id))
        await self._switchboard.reach(info.activity_type, "before", order_id)
        result = await super().execute_activity(input)
        await self._switchboard.reach(info.activity_type, "after", order_id)
        return result


def customer_of(sessions: Sessions) -> CustomerOf:
    """Whose order it is, read from the orders service; None while nobody can say."""

    async def read(order_id: UUID) -> UUID | None:
        try:
            async with sessions() as session:
                return (await orders.get(session, order_id)).customer_id
        except (NotFound, SQLAlchemyError, OSError):
            return None

    return read


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
