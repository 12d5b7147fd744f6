"""Every 30 s: what no run looks after any more is handed to one that does, and the processor's books are compared."""

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.books import BooksActivities
    from activities.reconciliation import ReconciliationActivities
    from models.messages import BooksResult, ReconcileInput, ReconcileResult
    from workflows import options


@workflow.defn
class ReconciliationWorkflow:
    """One pass; started by the schedule `reconciliation`, one at a time. `mercato breaks sweep` starts a whole one."""

    @workflow.run
    async def run(self, request: ReconcileInput) -> ReconcileResult:
        """The processor may be away: that must not keep lost orders from being found, nor hide that it is away."""
        result: ReconcileResult = await workflow.execute_activity_method(
            ReconciliationActivities.reconcile,
            request,
            summary="orders, runs and reservations",
            start_to_close_timeout=options.RECONCILE_TIMEOUT,
            retry_policy=options.ROUND_RETRY,
            schedule_to_close_timeout=2 * options.RECONCILE_TIMEOUT,
        )
        if not workflow.patched("books"):
            return result
        try:
            books: BooksResult = await workflow.execute_activity_method(
                BooksActivities.compare_books,
                request,
                summary="the processor's books",
                start_to_close_timeout=options.RECONCILE_TIMEOUT,
                retry_policy=options.ROUND_RETRY,
                schedule_to_close_timeout=options.RECONCILE_TIMEOUT,
            )
        except ActivityError:
            workflow.logger.warning("the processor's books could not be compared in this pass")
            return result
        return result.model_copy(update={"breaks_open": result.breaks_open + books.breaks})
