"""How a checkout comes to its end: why it was not sold, and work that is finished whatever arrives meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from models.messages import Ending, Refusal
    from models.types import OrderStatus

T = TypeVar("T")
LONGEST_CAUSE = 300  # characters; it goes into search results and details


class NotSold(Exception):
    """Ends the selling part: the order is rejected, expired or cancelled, and what was done is undone."""

    def __init__(
        self, status: OrderStatus, refusal: Refusal | None = None, *, actor: str = "", reason: str = ""
    ) -> None:
        super().__init__(status.value)
        self.status, self.refusal, self.actor, self.reason = status, refusal, actor, reason

    def message(self) -> Ending:
        """The same, to be handed on."""
        return Ending(status=self.status, refusal=self.refusal, actor=self.actor, reason=self.reason)

    @classmethod
    def of(cls, ending: Ending) -> "NotSold":
        return cls(ending.status, ending.refusal, actor=ending.actor, reason=ending.reason)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` whatever cancellation arrives meanwhile: `asyncio.shield` alone would lose the rest of it."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except BaseException:
            break
    return task.result()


def cause_of(failure: BaseException) -> str:
    """What went wrong at the bottom of `failure`, in the words of whoever raised it."""
    cause = failure.__cause__ or failure
    while isinstance(cause, FailureError) and not isinstance(cause, ApplicationError) and cause.__cause__:
        cause = cause.__cause__
    text = str(getattr(cause, "message", "") or cause) or type(cause).__name__
    return text[:LONGEST_CAUSE]


def type_of(failure: BaseException) -> str:
    """The code of what went wrong at the bottom of `failure`, as the service raised it; empty: it was no service."""
    cause = failure.__cause__ or failure
    return (cause.type or "") if isinstance(cause, ApplicationError) else ""
