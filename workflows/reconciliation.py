"""Every 30 s: what no run looks after any more is handed to one that does, and the processor's books are compared."""

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.books import BooksActivities
    from activities.reconciliation import ReconciliationActivities
    from models.messages import ReconcileInput, ReconcileResult
    from workflows import options


@workflow.defn
class ReconciliationWorkflow:
    """One pass; started by the schedule `reconciliation`, one at a time. `mercato breaks sweep` starts a whole one."""

    @workflow.run
    async def run(self, request: ReconcileInput) -> ReconcileResult:
        """The processor may be away: that must not keep lost orders from being found, nor hide that it is away."""
        orders = workflow.execute_activity_method(
            ReconciliationActivities.reconcile,
            request,
            summary="orders, runs and reservations",
            start_to_close_timeout=options.RECONCILE_TIMEOUT,
            retry_policy=options.ROUND_RETRY,
            schedule_to_close_timeout=2 * options.RECONCILE_TIMEOUT,
        )
        if not workflow.patched("books"):
            return await orders
        books = workflow.execute_activity_method(
            BooksActivities.compare_books,
            request,
            summary="the processor's books",
            start_to_close_timeout=options.BOOKS_TIMEOUT,
            heartbeat_timeout=options.RECONCILE_TIMEOUT,
            retry_policy=options.ROUND_RETRY,
            schedule_to_close_timeout=options.BOOKS_TIMEOUT,
        )
        mended, compared = await asyncio.gather(orders, books, return_exceptions=True)
        if isinstance(mended, BaseException):
            raise mended
        if isinstance(compared, BaseException):
            workflow.logger.warning("the processor's books could not be compared in this pass")
            return mended
        return mended.model_copy(update={"breaks_open": mended.breaks_open + compared.breaks})
