"""Every 30 s: what no run looks after any more is found and handed to one that does."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.reconciliation import ReconciliationActivities
    from models.messages import ReconcileInput, ReconcileResult
    from workflows import options


@workflow.defn
class ReconciliationWorkflow:
    """One pass; started by the schedule `reconciliation`, one at a time."""

    @workflow.run
    async def run(self, request: ReconcileInput) -> ReconcileResult:
        return await workflow.execute_activity_method(
            ReconciliationActivities.reconcile,
            request,
            start_to_close_timeout=options.RECONCILE_TIMEOUT,
            retry_policy=options.ROUND_RETRY,
            schedule_to_close_timeout=2 * options.RECONCILE_TIMEOUT,
        )
