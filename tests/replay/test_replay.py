"""Histories of released versions replay against the code at hand; a changed workflow does not."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from models.messages import CheckoutInput, CheckoutResult, OrderRef
from models.types import OrderStatus, PaymentStatus
from tests.replay.endings import endings
from workflows.checkout import CheckoutWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*/*.json"))


def load(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, json.loads(path.read_text()))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_a_recorded_history_replays(path: Path) -> None:
    replayer = Replayer(workflows=[CheckoutWorkflow], data_converter=pydantic_data_converter)
    await replayer.replay_workflow(load(path))


@pytest.mark.parametrize("version", sorted({path.parent.name for path in HISTORIES}))
def test_every_ending_is_recorded_on_both_paths(version: str) -> None:
    recorded = {path.stem for path in HISTORIES if path.parent.name == version}
    assert recorded == {f"{name}-{path}" for name in endings() for path in ("fast", "regular")}


@workflow.defn(name="CheckoutWorkflow")
class CheckoutThatForgetsToReserve:
    """What a careless change looks like: the second step is another one."""

    @workflow.run
    async def run(self, checkout: CheckoutInput) -> CheckoutResult:
        for step in ("prepare", "capture"):
            execute: Any = workflow.execute_local_activity if checkout.fast_path else workflow.execute_activity
            await execute(step, OrderRef(order_id=checkout.order_id), start_to_close_timeout=timedelta(seconds=1))
        return CheckoutResult(
            order_id=checkout.order_id, status=OrderStatus.CONFIRMED, payment_status=PaymentStatus.CAPTURED
        )

    @workflow.update
    async def placed(self) -> None:
        await workflow.wait_condition(lambda: False)


@pytest.mark.parametrize("name", ["confirmed-regular", "confirmed-fast", "expired-regular"])
async def test_a_changed_workflow_fails_replay(name: str) -> None:
    path = next(path for path in HISTORIES if path.stem == name)
    replayer = Replayer(workflows=[CheckoutThatForgetsToReserve], data_converter=pydantic_data_converter)
    with pytest.raises(workflow.NondeterminismError, match="TMPRL1100"):
        await replayer.replay_workflow(load(path))
