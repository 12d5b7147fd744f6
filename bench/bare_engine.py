"""The bare engine: a workflow of no-op local steps. `python -m bench.bare_engine PORT` runs its worker.

Everything as in the platform (client, converter, worker options, an update that waits for the outcome), only that no
step does anything: what the platform's orders cost on top of this is the platform's own.
"""

import asyncio
import sys
import time
from datetime import timedelta
from uuid import uuid4

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    import uvloop
    from temporalio.client import Client, WithStartWorkflowOperation
    from temporalio.common import WorkflowIDConflictPolicy

    from bench.shoppers import Round, side_by_side
    from core import temporal
    from core.settings import Settings
    from core.telemetry import configure_telemetry
    from workers.health import serve_health
    from workers.main import queue_worker

QUEUE = "bench-bare"


@activity.defn
async def nothing(step: str) -> str:
    return step


@workflow.defn
class BareWorkflow:
    """As many local steps as it is told, one after the other."""

    def __init__(self) -> None:
        self._done = False

    @workflow.run
    async def run(self, steps: int) -> int:
        for step in range(steps):
            await workflow.execute_local_activity(nothing, f"{step}", start_to_close_timeout=timedelta(seconds=2))
        self._done = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        return steps

    @workflow.update
    async def placed(self) -> bool:
        await workflow.wait_condition(lambda: self._done)
        return True


async def run(client: Client, workflows: int, steps: int, at_once: int) -> Round:
    """Run so many workflows of so many steps and wait for each one's outcome, as the API does."""
    result = Round()

    async def one() -> None:
        began = time.perf_counter()
        start = WithStartWorkflowOperation(
            BareWorkflow.run,
            steps,
            id=f"bare-{uuid4()}",
            task_queue=QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        await client.execute_update_with_start_workflow(
            BareWorkflow.placed, start_workflow_operation=start, id="placed", rpc_timeout=timedelta(seconds=10)
        )
        result.latencies.append(time.perf_counter() - began)
        result.orders.append("")

    began = time.perf_counter()
    await side_by_side(at_once, (one() for _ in range(workflows)))
    result.seconds = time.perf_counter() - began
    return result


async def _work(port: int) -> None:
    settings = Settings()
    configure_telemetry(settings, "bare")
    client = await temporal.connect(settings)
    worker = queue_worker(client, QUEUE, workflows=[BareWorkflow], activities=[nothing])
    async with serve_health("127.0.0.1", port), worker:
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_work(int(sys.argv[1])))
