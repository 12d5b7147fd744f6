"""The switchboard: which faults strike whom, how often, and that counting survives the process that crashes."""

import asyncio
import signal
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from activities.recorder import OrderRecorder
from core.faults import STEPS, Fault, FaultFile, Switchboard, switchboard
from core.settings import Settings
from models.errors import Conflict, Unavailable
from models.types import order_number
from workers.main import Resources, activities_of


def a_fault(**given: Any) -> Fault:
    return Fault(**{"id": uuid4().hex[:6], "place": "worker", "kind": "error", "step": "reserve", **given})


@pytest.fixture
def file(tmp_path: Path) -> FaultFile:
    return FaultFile(tmp_path / "faults.json")


async def struck(file: FaultFile, order_id: UUID | None = None, moment: Any = "before", step: str = "reserve") -> bool:
    """Whether a worker of another process, which has read nothing yet, is struck there."""
    try:
        await Switchboard("worker", FaultFile(file._path)).reach(step, moment, order_id)
    except (Unavailable, Conflict):
        return True
    return False


async def test_a_fault_strikes_at_its_step_and_moment_as_often_as_it_says(file: FaultFile) -> None:
    file.add(a_fault(moment="after", times=2))
    assert not await struck(file)
    assert not await struck(file, moment="after", step="release")
    assert [await struck(file, moment="after") for _ in range(3)] == [True, True, False]
    assert file.read() == ()


async def test_without_a_count_it_strikes_until_it_is_cleared(file: FaultFile) -> None:
    fault = a_fault(times=None)
    file.add(fault)
    assert [await struck(file) for _ in range(3)] == [True] * 3
    assert file.remove(fault.id) == [fault]
    assert not await struck(file)


async def test_an_order_is_meant_by_id_or_number_and_a_customer_by_id(file: FaultFile) -> None:
    order_id, customer = uuid4(), uuid4()
    file.add(a_fault(order=str(order_id)))
    file.add(a_fault(order=order_number(order_id)))
    assert not await struck(file, uuid4())
    assert not await struck(file, None)
    assert [await struck(file, order_id) for _ in range(3)] == [True, True, False]

    async def customer_of(order: UUID) -> UUID | None:
        return customer if order == order_id else None

    file.add(a_fault(customer=str(customer)))
    board = Switchboard("worker", file, customer_of=customer_of)
    await board.reach("reserve", "before", uuid4())
    with pytest.raises(Unavailable):
        await board.reach("reserve", "before", order_id)


def test_a_rate_picks_its_share_of_orders_and_always_the_same_ones() -> None:
    orders = [uuid4() for _ in range(2000)]
    fault = a_fault(rate=0.25, seed=7)
    picked = [order for order in orders if fault.picks(order)]
    assert 400 < len(picked) < 600
    assert all(replace(fault, step="capture").picks(order) for order in picked)
    assert picked != [order for order in orders if replace(fault, seed=8).picks(order)]
    assert not fault.picks(None)


async def test_a_refusal_is_not_retried_and_a_delay_only_delays(file: FaultFile) -> None:
    file.add(a_fault(kind="delay", seconds=0.01))
    file.add(a_fault(kind="refuse"))
    with pytest.raises(Conflict) as refused:
        await Switchboard("worker", file).reach("reserve", "before", None)
    assert not refused.value.retryable


async def test_a_crash_kills_the_process_once_counted_before_it_happens(file: FaultFile) -> None:
    file.add(a_fault(kind="crash"))
    assert await _reached_by_a_process(file) == -signal.SIGKILL
    assert file.read() == ()
    assert await _reached_by_a_process(file) == 0


async def test_many_processes_use_a_count_up_once_each(file: FaultFile) -> None:
    file.add(a_fault(kind="crash", times=3))
    codes = await asyncio.gather(*(_reached_by_a_process(file) for _ in range(5)))
    assert sorted(codes) == [-signal.SIGKILL] * 3 + [0, 0]


async def test_a_file_that_makes_no_sense_arms_nothing(file: FaultFile) -> None:
    file.add(a_fault())
    file._path.write_text('{"faults": [{"place"')
    assert not await struck(file)


def test_production_refuses_the_settings_and_installs_nothing(tmp_path: Path) -> None:
    secret: dict[str, Any] = {
        "environment": "production",
        "secret_key": "s" * 40,
        "signing_key": "k",
        "processor_api_key": "sk_live_x",
        "webhook_secret": "whsec_of_our_own",
    }
    for fault in ({"faults_file": str(tmp_path / "faults.json")}, {"crash_at": "reserve:after"}):
        with pytest.raises(ValidationError, match="refused in production"):
            Settings(**secret, **fault)
    settings = Settings(**secret)
    assert settings.present_faults_file is None
    assert switchboard(settings, "worker") is None
    assert switchboard(settings.model_copy(update={"faults_file": "faults.json"}), "worker") is None


async def _reached_by_a_process(file: FaultFile) -> int:
    script = (
        "import asyncio, sys; from pathlib import Path; from core.faults import FaultFile, Switchboard\n"
        "board = Switchboard('worker', FaultFile(Path(sys.argv[1])))\n"
        "asyncio.run(board.reach('reserve', 'before', None))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(file._path), stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


def test_every_step_of_the_worker_can_be_struck() -> None:
    nothing: Any = defaultdict(lambda: None)
    resources = Resources(Settings(), nothing, OrderRecorder(nothing["orders"], nothing["redis"]), *([nothing] * 2))
    names = {getattr(step, "__temporal_activity_definition").name for step in activities_of(resources)}
    assert names <= set(STEPS["worker"])
