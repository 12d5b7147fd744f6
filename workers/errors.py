"""Domain errors become Temporal failures here, once."""

from typing import Any

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from models.errors import MercatoError


class ErrorInterceptor(Interceptor):
    """A refusal is not retried and logged quietly; an outage and anything unforeseen is retried by the step."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Translate(next)


class _Translate(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        with logger.contextualize(order_id=order_of(activity.info().workflow_id)):
            return await self._translated(input)

    async def _translated(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except MercatoError as error:
            category = ApplicationErrorCategory.UNSPECIFIED if error.retryable else ApplicationErrorCategory.BENIGN
            raise ApplicationError(
                error.detail, error.extra, type=error.code, non_retryable=not error.retryable, category=category
            ) from None
        except (SQLAlchemyError, OSError) as error:
            # Its text may carry SQL with a shopper's data in it, and histories are kept for long.
            logger.opt(exception=error).warning("{step} could not be carried out", step=activity.info().activity_type)
            raise ApplicationError(_in_short(error), type="dependency_unavailable") from None


def _in_short(error: Exception) -> str:
    """What is wrong, in one line that staff can read, without statement or parameters."""
    cause = getattr(error, "orig", None) or error
    deepest = cause.__cause__ or cause
    first_line = (str(deepest).splitlines() or [""])[0]
    return f"{type(deepest).__name__}: {first_line}"[:200]


def order_of(workflow_id: str | None) -> str | None:
    """The order that `checkout-{id}`, `repair-{id}` or `fulfilment-{id}` is about."""
    kind, _, order_id = (workflow_id or "").partition("-")
    return order_id if kind in ("checkout", "repair", "fulfilment") else None
