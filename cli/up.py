"""`mercato up`, `down`, `status`: the whole platform on one machine."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from cli import ports
from cli.platform import Platform, Stopped
from cli.process import ProgramFailed
from cli.running import Lock, Running, Unreachable, running
from core.settings import Settings

DOWN_SECONDS = 40
READY = b"ready\n"


def up(
    detach: bool = typer.Option(False, "--detach", "-d", help="Return when everything is ready."),
    notify_fd: int = typer.Option(-1, hidden=True, help="Tell this descriptor when ready."),
) -> None:
    """Start everything, wait until it is ready, run until Ctrl-C."""
    settings = Settings()
    settings.data_dir = settings.data_dir.resolve()
    present = running(settings.data_dir)
    if present:
        _print_running(present, "Mercato is running already")
        return
    if detach:
        _detach(settings)
        return
    lock = Lock(settings.data_dir)
    if not lock.take():
        raise _fail("Another `mercato up` is starting in this folder.")
    platform = Platform(settings)
    _refuse_taken_ports(platform)
    raise SystemExit(asyncio.run(_run(platform, notify_fd)))


def down() -> None:
    """End what `mercato up` started here."""
    settings = Settings()
    present = running(settings.data_dir)
    if present is None:
        print("Mercato is not running.")  # noqa: T201
        return
    if present.pid:
        os.kill(present.pid, signal.SIGTERM)
    give_up_at = time.monotonic() + DOWN_SECONDS
    while running(settings.data_dir):
        if time.monotonic() > give_up_at:
            raise _fail(f"Process {present.pid} did not end within {DOWN_SECONDS} s.")
        time.sleep(0.05)
    print("Mercato is down. Its data is kept in", settings.data_dir.resolve())  # noqa: T201


def status() -> None:
    """Show what runs, and where. Exits with 1 when nothing does."""
    present = running(Settings().data_dir)
    if present is None:
        print("Mercato is not running. Start it with `mercato up`.")  # noqa: T201
        raise SystemExit(1)
    table = Table("program", "state", "pid", "restarts", box=None, pad_edge=False, header_style="bold")
    for program in present.programs:
        table.add_row(*(str(program[column] or "-") for column in ("name", "state", "pid", "restarts")))
    _print_running(present, "Mercato")
    Console().print(table)


async def _run(platform: Platform, notify_fd: int) -> int:
    """Until a signal comes or a program is given up. The exit code."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, platform.ask_to_stop)
    failure: Exception | None = None
    try:
        await platform.start()
        Console(soft_wrap=True).print(_addresses(platform.state.addresses, "Mercato is ready"))
        if notify_fd >= 0:
            os.write(notify_fd, READY)
            os.close(notify_fd)
        failure = await platform.until_stopped()
    except Stopped:
        pass
    except (ProgramFailed, Unreachable) as error:
        failure = error
    finally:
        await platform.stop()
    if failure:
        sys.stderr.write(f"\nMercato cannot run: {failure}\n\n")
    return 1 if failure else 0


def _detach(settings: Settings) -> None:
    """Start `mercato up` in a session of its own and wait for its word on a pipe."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    log = settings.data_dir / "up.log"
    if log.exists():
        log.replace(settings.data_dir / "up.log.1")
    ours, theirs = os.pipe()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--notify-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs,),
            start_new_session=True,
        )
    os.close(theirs)
    try:
        ready = os.read(ours, len(READY)) == READY  # or the end of the pipe, when it dies
    except KeyboardInterrupt:
        child.terminate()
        raise
    if not ready:
        code = child.wait()
        sys.stderr.write(_tail(log) + f"\n`mercato up` ended with {code}. The whole log: {log}\n")
        raise SystemExit(code or 1)
    present = running(settings.data_dir)
    if present:
        _print_running(present, "Mercato is ready")


def _refuse_taken_ports(platform: Platform) -> None:
    """After a crash the last run's servers may still be closing: give them five seconds."""
    give_up_at = time.monotonic() + (5 if platform.ended_badly else 0)
    while sentences := ports.taken(platform.settings.host, platform.ports):
        if time.monotonic() > give_up_at:
            raise _fail("\n".join(sentences))
        time.sleep(0.1)


def _print_running(present: Running, title: str) -> None:
    words = {"starting": "is still starting", "stopping": "is stopping"}.get(present.state, "")
    Console(soft_wrap=True).print(_addresses(present.addresses, f"{title} {words}".strip(), present.pid))


def _addresses(addresses: dict[str, str], title: str, pid: int = 0) -> str:
    width = max(map(len, addresses), default=0)
    lines = [f"  {name:<{width}}  {address}" for name, address in addresses.items()]
    process = f" (process {pid})" if pid else ""
    return "\n".join(["", f"[bold green]{title}[/]{process}", "", *lines, ""])


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def _fail(words: str) -> SystemExit:
    sys.stderr.write(words + "\n")
    return SystemExit(1)
