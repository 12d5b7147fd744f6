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

# An undo that has failed five times is shown to staff; what it gives back is somebody's money or stock.
UNDO_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=5,
)

# Authentication of a shopper is asked after this often: the processor's word may be lost.
LOOK_PAUSE = timedelta(seconds=60)
SHORTEST_PAUSE = timedelta(seconds=1)  # less is no time left: a shopper does nothing in it
MOST_CARDS = 20  # an order: whoever tries more tries out stolen numbers
LONG_HISTORY = 4_000  # events; a run that stands still goes on in a new history then, the server's limit is 51,200

# Writing down that something stands still must not hold up what stands still.
NOTE_BUDGET = timedelta(seconds=10)
NOTE_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=5))

RECONCILE_TIMEOUT = timedelta(seconds=60)
BOOKS_TIMEOUT = timedelta(minutes=10)  # a sweep looks at everything there is


def checkout_workflow_id(order_id: object) -> str:
    return f"checkout-{order_id}"


def repair_workflow_id(order_id: object) -> str:
    return f"repair-{order_id}"


def fulfilment_workflow_id(order_id: object) -> str:
    return f"fulfilment-{order_id}"


def runs_of(order_id: object) -> tuple[str, str, str]:
    """The ids of all the workflows that may be open for an order."""
    return checkout_workflow_id(order_id), repair_workflow_id(order_id), fulfilment_workflow_id(order_id)
