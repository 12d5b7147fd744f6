"""One time-skipping Temporal server a run: hours pass while a result is awaited."""

import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from core.temporal import ensure_search_attributes
from models.messages import CheckoutInput, CheckoutResult, FulfilmentInput
from tests.workflows.shop import FakeShop
from workflows.checkout import CheckoutWorkflow
from workflows.fulfilment import FulfilmentWorkflow

Start = Callable[[FakeShop, CheckoutInput | FulfilmentInput], Awaitable[WorkflowHandle[Any, CheckoutResult]]]
WORKFLOWS = (CheckoutWorkflow, FulfilmentWorkflow)


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    beside = Path(sys.executable).with_name("temporal-test-server")
    server = str(beside) if beside.exists() else shutil.which("temporal-test-server")
    environment = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=server, data_converter=pydantic_data_converter
    )
    await ensure_search_attributes(environment.client)
    async with environment:
        yield environment


@pytest.fixture
async def start(skipping: WorkflowEnvironment) -> AsyncIterator[Start]:
    """Start a checkout, or what comes after it, against a fake shop, with a worker and a task queue of its own."""
    async with AsyncExitStack() as workers:

        async def begin(shop: FakeShop, order: CheckoutInput | FulfilmentInput) -> Any:
            workflow: Any = CheckoutWorkflow if isinstance(order, CheckoutInput) else FulfilmentWorkflow
            queue = str(uuid4())
            client: Client = skipping.client
            worker = Worker(client, task_queue=queue, workflows=WORKFLOWS, activities=shop.activities())
            await workers.enter_async_context(worker)
            return await client.start_workflow(
                workflow.run, order, id=f"{workflow.__name__}-{order.order_id}", task_queue=queue
            )

        yield begin
