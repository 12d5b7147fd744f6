"""The checkout after careless changes."""

import time

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from models.messages import CheckoutInput


@workflow.defn(name="CheckoutWorkflow")
class CheckoutThatWaitsFirst:
    """A timer where there was a step."""

    @workflow.run
    async def run(self, checkout: CheckoutInput) -> None:
        await workflow.sleep(1)


@workflow.defn(name="CheckoutWorkflow", sandboxed=False)
class CheckoutThatTakesItsTime:
    """Computes for longer than anybody waits, and not so long that the deadlock detector sees it."""

    @workflow.run
    async def run(self, checkout: CheckoutInput) -> None:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            pass
