"""The supervisor, with small programs in place of servers."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cli import probes
from cli.process import Program, ProgramFailed
from cli.supervisor import Supervisor
from tests.stack import HOST, free_port

Lines = list[tuple[str, str]]


def script(name: str, text: str, ready: probes.Probe, **options: object) -> Program:
    return Program(name=name, command=["sh", "-c", text], ready=ready, **options)  # type: ignore[arg-type]


def file_exists(path: Path) -> probes.Probe:
    async def ask() -> bool:
        return path.exists()  # noqa: ASYNC240

    return ask


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_dead(pid: int) -> bool:
    """Ended, whether or not somebody has taken note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
async def supervisor(lines: Lines) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(lambda name, line: lines.append((name, line)))
    yield supervisor
    await supervisor.stop(stop_signal=signal.SIGKILL)


async def test_a_program_starts_when_what_it_needs_is_ready(
    supervisor: Supervisor, lines: Lines, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    await supervisor.start(
        script(
            "second",
            f"test -e {first} && echo found; touch {second}; exec sleep 60",
            file_exists(second),
            needs=("first",),
        ),
        script("first", f"sleep 0.2; touch {first}; exec sleep 60", file_exists(first)),
    )
    await until(lambda: ("second", "found") in lines)


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_a_gate_opens_when_the_server_answers(supervisor: Supervisor, kind: str, tmp_path: Path) -> None:
    port = free_port()
    probe = probes.tcp(HOST, port) if kind == "tcp" else probes.http(HOST, port, "/")
    assert not await probe()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST]
    await supervisor.start(Program(name="server", command=command, ready=probe, directory=tmp_path))
    assert await probe()
    assert not await probes.http(HOST, port, "/missing")()


async def test_a_command_gate_is_its_return_code() -> None:
    assert await probes.command(["true"])()
    assert not await probes.command(["false"])()


async def test_a_program_that_does_not_start_is_told_with_its_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    broken = script("broken", "echo no disk >&2; exit 3", file_exists(tmp_path / "never"), advice="Buy a disk.")
    with pytest.raises(ProgramFailed, match=r"broken ended with 3(?s:.*)no disk(?s:.*)Buy a disk"):
        await supervisor.start(broken)


async def test_a_program_that_is_never_ready_fails(supervisor: Supervisor, tmp_path: Path) -> None:
    slow = script("slow", "exec sleep 60", file_exists(tmp_path / "never"), start_seconds=0.2)
    with pytest.raises(ProgramFailed, match=r"not ready within 0\.2 s"):
        await supervisor.start(slow)


async def test_a_missing_program_is_named(supervisor: Supervisor) -> None:
    absent = Program(name="absent", command=["/nowhere/server"], ready=probes.tcp(HOST, 1))
    with pytest.raises(ProgramFailed, match="/nowhere/server: No such file"):
        await supervisor.start(absent)


async def test_a_killed_program_comes_back(supervisor: Supervisor, tmp_path: Path) -> None:
    up = tmp_path / "up"
    await supervisor.start(script("server", f"touch {up}; exec sleep 60", file_exists(up)))
    server = supervisor.programs["server"]
    first = server.process.pid
    server.process.kill()
    await until(lambda: server.state == "ready" and server.process.pid != first)
    assert server.restarts == 1


async def test_a_program_that_keeps_dying_is_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    up = tmp_path / "up"
    ends = f"test -e {up} && {{ echo out of luck; exit 4; }}; touch {up}; sleep 1"
    await supervisor.start(script("server", ends, file_exists(up), restarts=2))
    async with asyncio.timeout(20):
        failure = await supervisor.given_up()
    assert "given up" in str(failure)
    assert "out of luck" in str(failure)


async def test_programs_end_before_what_they_need_and_stubborn_ones_are_killed(
    supervisor: Supervisor, lines: Lines, tmp_path: Path
) -> None:
    def server(name: str, on_term: str, **options: object) -> Program:
        up = tmp_path / name
        text = f"trap '{on_term}' TERM; touch {up}; while :; do sleep 0.05; done"
        return script(name, text, file_exists(up), **options)

    await supervisor.start(
        server("database", "echo bye; exit 0"),
        server("shop", "echo bye; exit 0", needs=("database",)),
        server("stubborn", "echo no", needs=("database",), stop_seconds=2),
    )
    await supervisor.stop()
    said = [line for line in lines if line[1] in ("bye", "no")]
    assert said[-1] == ("database", "bye")
    assert sorted(said[:-1]) == [("shop", "bye"), ("stubborn", "no")]
    assert all(one.state == "ended" for one in supervisor.programs.values())
    assert all(one.process.pid and is_dead(one.process.pid) for one in supervisor.programs.values())


async def test_long_and_broken_lines_do_no_harm(supervisor: Supervisor, lines: Lines, tmp_path: Path) -> None:
    up = tmp_path / "up"
    text = f"head -c 200000 /dev/zero | tr '\\0' x; echo; printf '\\377broken\\n'; touch {up}; exec sleep 60"
    await supervisor.start(script("noisy", text, file_exists(up)))
    await until(lambda: any("broken" in line for _, line in lines))
    assert sum(len(line) for _, line in lines if "x" in line) >= 200000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_kill_9_of_the_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    program = """
import asyncio
from cli.process import Program
from cli.supervisor import Supervisor

async def ready():
    return True

async def main():
    supervisor = Supervisor(lambda name, line: None)
    await supervisor.start(Program(name="server", command=["sleep", "60"], ready=ready))
    print(supervisor.programs["server"].process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert parent.stdout is not None
    child = int(await asyncio.to_thread(parent.stdout.readline))
    assert not is_dead(child)
    parent.kill()
    parent.wait()
    await until(lambda: is_dead(child))
