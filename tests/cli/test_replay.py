"""`mercato replay`: what real runs left behind is replayed, and what does not fit the code is found."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from cli.histories import files
from cli.replaying import Replayed, ReplayRun
from core.temporal import DATA_CONVERTER, ensure_search_attributes
from tests.cli.changed_workflows import CheckoutThatTakesItsTime, CheckoutThatWaitsFirst
from tests.cli.command import mercato
from tests.workflows.shop import FakeShop, checkout_input
from workers.main import WORKFLOWS
from workflows.checkout import CheckoutWorkflow

GOLDEN = Path(__file__).parent.parent / "replay" / "histories"


def golden(name: str) -> Path:
    return next(GOLDEN.glob(f"*/{name}.json"))


def changed(path: Path, change: Callable[[str], str], target: Path) -> Path:
    target.write_text(change(path.read_text()))
    return target


def read_bytes(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
async def order_id(temporal_address: str) -> UUID:
    """An order whose checkout has just run on the real server."""
    client = await Client.connect(temporal_address, data_converter=DATA_CONVERTER)
    await ensure_search_attributes(client)
    checkout, queue = checkout_input(), str(uuid4())
    async with Worker(client, task_queue=queue, workflows=[CheckoutWorkflow], activities=FakeShop().activities()):
        await client.execute_workflow(
            CheckoutWorkflow.run, checkout, id=f"checkout-{checkout.order_id}", task_queue=queue
        )
    return checkout.order_id


async def test_a_folder_of_golden_histories_replays() -> None:
    done = await mercato("replay", "--dir", str(GOLDEN))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(list(GOLDEN.glob('*/*.json')))} replays" in done.stdout


async def test_an_order_is_replayed_by_its_id_and_saved_as_a_file_that_replays(
    order_id: UUID, temporal_address: str, tmp_path: Path
) -> None:
    env = {"MERCATO_TEMPORAL_ADDRESS": temporal_address}
    done = await mercato("replay", str(order_id), "--save", str(tmp_path), "--json", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [one["workflowId"] for one in report["histories"]] == [f"checkout-{order_id}"]
    (case,) = files([], [tmp_path])
    saved = Path(case.name)
    before = read_bytes(saved)
    assert (await mercato("replay", f"checkout-{order_id}", "--save", str(tmp_path), env=env)).returncode == 0
    assert read_bytes(saved) == before
    assert (await mercato("replay", "--file", str(saved))).returncode == 0


async def test_a_query_and_a_time_select_histories(order_id: UUID, temporal_address: str) -> None:
    env = {"MERCATO_TEMPORAL_ADDRESS": temporal_address}
    by_query = await mercato("replay", "--query", f"WorkflowId = 'checkout-{order_id}'", "--json", env=env)
    assert [one["workflowId"] for one in json.loads(by_query.stdout)["histories"]] == [f"checkout-{order_id}"]
    by_time = await mercato("replay", "--all", "--since", "1h", "--limit", "1", "--json", env=env)
    assert len(json.loads(by_time.stdout)["histories"]) == 1


async def test_a_history_that_differs_is_shown_with_its_place_and_ends_with_1(tmp_path: Path) -> None:
    bad = changed(
        golden("confirmed-regular"),
        lambda text: text.replace('"name": "capture"', '"name": "take_money"'),
        tmp_path / "bad.json",
    )
    done = await mercato("replay", "--file", str(bad), "--file", str(golden("expired-fast")))
    assert done.returncode == 1
    assert "[TMPRL1100]" in done.stdout
    assert "take_money" in done.stdout
    assert "event " in done.stdout
    assert "1 replays" in done.stdout


async def replayed(workflows: list[type], *names: str) -> list[Replayed]:
    cases = files([golden(name) for name in names], [])
    return await ReplayRun(workflows, lanes=2).replay(cases, lambda *_: None)


async def test_a_changed_workflow_differs_at_the_first_task() -> None:
    results = await replayed([CheckoutThatWaitsFirst], "confirmed-regular", "confirmed-fast", "expired-regular")
    assert {result.outcome for result in results} == {"differs"}
    assert all("TMPRL1100" in result.problem for result in results)
    assert {result.event_id for result in results} == {4}


async def test_a_workflow_that_this_code_does_not_know_fails() -> None:
    results = await replayed([w for w in WORKFLOWS if w is not CheckoutWorkflow], "confirmed-fast")
    assert [result.outcome for result in results] == ["fails"]


async def test_a_history_that_does_not_replay_in_time_is_stuck_and_the_next_has_its_turn() -> None:
    run = ReplayRun([CheckoutThatTakesItsTime], seconds=0.3, lanes=1)
    cases = files([golden("confirmed-fast"), golden("expired-fast")], [])
    results = await run.replay(cases, lambda *_: None)
    assert [result.outcome for result in results] == ["stuck", "stuck"]
    await asyncio.gather(*run.abandoned)


@pytest.mark.parametrize(
    "wrapped",
    [lambda events: {"events": events}, lambda events: {"history": {"events": events}}, lambda events: events],
    ids=["cli", "ui-api", "bare"],
)
async def test_every_form_of_a_history_is_read(wrapped: Callable[[list[object]], object], tmp_path: Path) -> None:
    events = json.loads(golden("confirmed-fast").read_text())["events"]
    path = tmp_path / "history.json"
    path.write_text(json.dumps(wrapped(events)))
    done = await mercato("replay", "--file", str(path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no JSON"),
        ('{"events": [', "no JSON"),
        ("[]", "no events"),
        ('{"hello": 1}', "no events"),
        ('{"events": [{"eventId": "x"}]}', "not the events of a workflow"),
        ('{"events": [1]}', "not the events of a workflow"),
        ('{"events": [{"eventId": "7", "eventType": "EVENT_TYPE_WORKFLOW_TASK_SCHEDULED"}]}', "first event"),
    ],
)
async def test_a_file_that_is_no_history_is_named(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "no-history.json"
    path.write_text(content)
    done = await mercato("replay", "--file", str(path), "--json")
    assert done.returncode == 1
    (told,) = json.loads(done.stdout)["histories"]
    assert told["outcome"] == "unreadable"
    assert told["name"] == str(path)
    assert words in told["problem"]


async def test_nothing_found_is_not_success(temporal_address: str, tmp_path: Path) -> None:
    env = {"MERCATO_TEMPORAL_ADDRESS": temporal_address}
    assert (await mercato("replay", str(uuid4()), env=env)).returncode == 1
    assert (await mercato("replay", "--dir", str(tmp_path))).returncode == 1
    missing = await mercato("replay", "--dir", str(tmp_path / "nowhere"))
    assert missing.returncode == 1
    assert "no directory" in missing.stderr


async def test_without_a_server_it_says_so() -> None:
    done = await mercato("replay", "--all", env={"MERCATO_TEMPORAL_ADDRESS": "127.0.0.1:9"})
    assert done.returncode == 1
    assert "mercato up" in done.stderr
