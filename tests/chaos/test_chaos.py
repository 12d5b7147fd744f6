"""`mercato chaos`: its plan is a function of the seed, it tells right from wrong, and known seeds hold."""

import asyncio
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.chaos_plan import PRODUCTS, Wish, make_plan
from cli.chaos_report import Run, as_json, print_run
from cli.chaos_shoppers import Story
from cli.chaos_verdict import Verdict, lies
from tests.chaos.seeds import LONG, SHORT, Seed
from tests.cli.command import mercato
from tests.stack import inherited_environment


def test_the_same_seed_makes_the_same_plan() -> None:
    plan = make_plan(7, 2, 5)
    assert plan == make_plan(7, 2, 5)
    assert plan.blows != make_plan(8, 2, 5).blows
    assert 400 < len(plan.wishes) < 800
    times = [blow.at for blow in plan.blows]
    assert times == sorted(times)
    assert times[-1] < plan.seconds
    kinds = {blow.kind for blow in make_plan(7, 30, 1).blows}
    assert kinds == {"kill", "pause", "off", "step", "processor", "terminate", "reset"}


def test_some_products_sell_out_and_most_do_not() -> None:
    plan = make_plan(3, 5, 5)
    wanted = [sum(wish.lines.get(product, 0) for wish in plan.wishes) for product in range(PRODUCTS)]
    assert 0 < sum(have < want for have, want in zip(plan.stock, wanted, strict=True)) < PRODUCTS / 2


async def test_a_plan_can_be_read_without_anything_being_started() -> None:
    shown = await mercato("chaos", "--seed", "7", "--minutes", "0.5", "--rate", "2", "--plan")
    assert shown.returncode == 0, shown.stderr
    again = await mercato("chaos", "--seed", "7", "--minutes", "0.5", "--rate", "2", "--plan")
    assert shown.stdout == again.stdout
    assert len(shown.stdout.splitlines()) == 1 + len(make_plan(7, 0.5, 2).blows) + len(make_plan(7, 0.5, 2).wishes)


def a_story(order_id: str = "a", **given: Any) -> Story:
    story = Story(Wish(0, 0, {0: 1}, "visa", "complete", 1), "key", {order_id})
    for name, value in given.items():
        setattr(story, name, value)
    return story


@pytest.mark.parametrize(
    ("story", "status", "said"),
    [
        (a_story(accepted=True), "confirmed", ""),
        (a_story(accepted=True), "expired", ""),
        (a_story(accepted=True), "pending", "accepted"),
        (a_story(), "", "does not exist"),
        (a_story(told={"confirmed"}), "cancelled", "nobody cancelled"),
        (a_story(told={"confirmed"}, asked_to_cancel=True), "cancelled", ""),
        (a_story(told={"confirmed"}, asked_to_cancel=True), "expired", "nobody cancelled"),
        (a_story(order_ids={"a", "b"}), "confirmed", "several orders"),
    ],
)
def test_a_lie_to_a_client_is_told(story: Story, status: str, said: str) -> None:
    found = lies([story, a_story("b")], {"a": status, "b": "confirmed"} if status else {"b": "confirmed"})
    assert said in " ".join(found)
    assert bool(found) == bool(said)


def test_more_orders_than_wishes_are_told() -> None:
    assert "2 orders were written for 1 wishes" in lies([a_story()], {"a": "confirmed", "c": "confirmed"})


@pytest.mark.parametrize("wrong", ["breaches", "breaks"])
def test_what_is_wrong_at_the_end_is_told_and_fails_the_run(wrong: str, tmp_path: Path) -> None:
    found = [f"thing {number} [of many]" for number in range(12)]
    run = Run(make_plan(7, 0.1, 1), tmp_path, verdict=Verdict(**{wrong: found}))
    said = io.StringIO()
    print_run(Console(file=said, width=1000), run)
    name = {"breaches": "breach", "breaks": "open break"}[wrong]
    assert f"{name} thing 9 [of many]" in said.getvalue()
    assert f"{name} and 2 more" in said.getvalue()
    assert "Everything holds" not in said.getvalue()
    assert not as_json(run)["holds"]


@pytest.mark.parametrize(
    "seed",
    [
        *(pytest.param(seed, marks=pytest.mark.timeout(400)) for seed in SHORT),
        *(pytest.param(seed, marks=[pytest.mark.long, pytest.mark.timeout(900)]) for seed in LONG),
    ],
    ids=lambda seed: f"seed {seed.seed}",
)
async def test_a_known_seed_holds(seed: Seed, tmp_path: Path) -> None:
    summary = tmp_path / "chaos.json"
    arguments = ["--seed", str(seed.seed), "--minutes", str(seed.minutes), "--rate", str(seed.rate)]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli.main", "chaos", *arguments, "--json", str(summary)],
        env=inherited_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(summary.read_text())
    assert told["holds"]
    assert told["wishes"] == len(make_plan(*seed[:3]).wishes)
    assert any(ending.startswith("confirmed") for ending in told["verdict"]["endings"])
    assert len(told["blows"]) == len(make_plan(*seed[:3]).blows)
    assert not all(blow["missed"] for blow in told["blows"])


@pytest.fixture
def running_chaos(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = {**inherited_environment(), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "cli.main", "chaos", "--minutes", "5", "--rate", "2"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()
    shutil.rmtree(tmp_path, ignore_errors=True)


async def test_an_interrupted_run_ends_everything_it_started(
    running_chaos: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    from tests.cli.test_supervisor import is_dead
    from tests.e2e.shopper import eventually

    async def look() -> list[int]:
        return await asyncio.to_thread(_programs, tmp_path)

    pids = await eventually(look, 60)
    assert len(pids) == 7
    running_chaos.send_signal(signal.SIGINT)
    said, _ = await asyncio.to_thread(running_chaos.communicate, timeout=60)
    assert running_chaos.returncode != 0
    assert "Not finished" in said
    assert all(map(is_dead, pids))


def _programs(directory: Path) -> list[int]:
    """The pids of a run's programs, once all are ready."""
    for file in directory.glob("mercato-chaos-*/up.json"):
        state = json.loads(file.read_text())
        if state["state"] == "ready":
            return [int(one["pid"]) for one in state["programs"] if one["pid"]]
    return []
