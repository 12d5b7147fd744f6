"""Named timeouts and retry policies. Durations are part of a run's input or stand here: replay must agree."""

from datetime import timedelta

from temporalio.common import RetryPolicy

TASK_QUEUE = "checkout"

# One attempt at writing something down.
ATTEMPT = timedelta(seconds=10)

FAST_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=100), backoff_coefficient=2, maximum_attempts=3)

ROUND_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
)

# Writing down that something stands still must not hold up what stands still.
NOTE_BUDGET = timedelta(seconds=10)
NOTE_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=5))

RECONCILE_TIMEOUT = timedelta(seconds=60)


def checkout_workflow_id(order_id: object) -> str:
    return f"checkout-{order_id}"


def repair_workflow_id(order_id: object) -> str:
    return f"repair-{order_id}"


def fulfilment_workflow_id(order_id: object) -> str:
    return f"fulfilment-{order_id}"
