"""A time-skipping Temporal server: hours pass while a result is awaited."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from core.temporal import ensure_search_attributes
from models.messages import CheckoutInput, CheckoutResult, FulfilmentInput
from tests.workflows.shop import FakeShop
from workflows.checkout import CheckoutWorkflow
from workflows.fulfilment import FulfilmentWorkflow

Start = Callable[[FakeShop, CheckoutInput | FulfilmentInput], Awaitable[WorkflowHandle[Any, CheckoutResult]]]
WORKFLOWS = (CheckoutWorkflow, FulfilmentWorkflow)


SKIP = timedelta(minutes=10)
SKIP_SECONDS = 5  # of ours: it takes milliseconds, or it never comes


class SkippingServer:
    """The server that skips time; another one when its time stands still.

    It does not skip while an activity is under way, and forgets that one has ended when its workflow had ended before,
    as it does in tests that cancel in the middle of a step: from then on its clock is ours, and whoever waits for an
    hour waits for an hour.
    """

    def __init__(self) -> None:
        self._environment: WorkflowEnvironment | None = None

    async def client(self) -> Client:
        if self._environment is None:
            beside = Path(sys.executable).with_name("temporal-test-server")
            server = str(beside) if beside.exists() else shutil.which("temporal-test-server")
            self._environment = await WorkflowEnvironment.start_time_skipping(
                test_server_existing_path=server, data_converter=pydantic_data_converter
            )
            await ensure_search_attributes(self._environment.client)
        return self._environment.client

    async def check(self) -> None:
        """Let go of a server that does not skip any more."""
        if self._environment is None:
            return
        try:
            async with asyncio.timeout(SKIP_SECONDS):
                await self._environment.sleep(SKIP)
        except (TimeoutError, RPCError):
            await self.shutdown()

    async def shutdown(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            await environment.shutdown()


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[SkippingServer]:
    server = SkippingServer()
    yield server
    await server.shutdown()


@pytest.fixture
async def start(skipping: SkippingServer) -> AsyncIterator[Start]:
    """Start a checkout, or what comes after it, against a fake shop, with a worker and a task queue of its own."""
    async with AsyncExitStack() as workers:

        async def begin(shop: FakeShop, order: CheckoutInput | FulfilmentInput) -> Any:
            workflow: Any = CheckoutWorkflow if isinstance(order, CheckoutInput) else FulfilmentWorkflow
            queue, client = str(uuid4()), await skipping.client()
            worker = Worker(client, task_queue=queue, workflows=WORKFLOWS, activities=shop.activities())
            await workers.enter_async_context(worker)
            return await client.start_workflow(
                workflow.run, order, id=f"{workflow.__name__}-{order.order_id}", task_queue=queue
            )

        yield begin
    await skipping.check()
