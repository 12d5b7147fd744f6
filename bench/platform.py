"""The platform for a measurement: real servers with durable data on free ports, thrown away at the end."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg

from bench.machine import cpu_seconds
from cli.process import Program
from tests.stack import Platform, Running, Stack, start_platform, start_processor

# As `mercato up` runs it, but for the limits that a load generator would run into.
ENVIRONMENT = {
    "MERCATO_ENVIRONMENT": "development",
    "MERCATO_LOG_LEVEL": "WARNING",
    "MERCATO_ACCESS_TOKEN_SECONDS": "7200",
    "MERCATO_FAST_STEP_SECONDS": "2",
    "MERCATO_ROUND_SECONDS": "60",
    "MERCATO_ROUND_PAUSE_SECONDS": "180",
    "MERCATO_RECONCILE_EVERY_SECONDS": "30",
    "MERCATO_RECONCILE_AFTER_SECONDS": "30",
    "MERCATO_PROCESSOR_TIMEOUT_SECONDS": "8",
    "MERCATO_STREAM_HEARTBEAT_SECONDS": "15",
}

SERVERS = ("postgres", "valkey", "temporal", "processor")


@dataclass
class Measured:
    """A running platform and the processes of each component."""

    platform: Platform

    @property
    def stack(self) -> Stack:
        return self.platform.stack

    @property
    def owner_url(self) -> str:
        return self.platform.owner_url

    def run(self, program: Program) -> Running:
        """Another process beside the platform, under the same supervisor."""
        return Running(self.stack, program).start()

    @contextmanager
    def alone(self, *components: str) -> Iterator[None]:
        """Meanwhile only these components and the servers run: the others, though idle, wake up now and then."""
        others = [
            one.process.pid
            for name, one in self.stack.supervisor.programs.items()
            if one.process.pid is not None and name.partition("-")[0] not in (*components, *SERVERS)
        ]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def cpu(self) -> dict[str, float]:
        """CPU seconds used so far, by component; `client` is this process, which makes the load."""
        processes = self.stack.supervisor.programs
        used = {"client": time.process_time()}
        for name, one in processes.items():
            if one.process.pid is not None:
                component = name.partition("-")[0]
                used[component] = used.get(component, 0.0) + cpu_seconds([one.process.pid])
        return used


@contextmanager
def measured(env: Mapping[str, str] | None = None) -> Iterator[Measured]:
    """Start everything; PostgreSQL syncs to disk as in production and counts its statements."""
    stack = Stack(durable=True)
    try:
        owner_url = stack.make_database("platform")
        processor = start_processor(stack, owner_url)
        platform = start_platform(stack, owner_url, processor, {**ENVIRONMENT, **(env or {})})
        stack.run(_count_statements(owner_url))
        yield Measured(platform)
    finally:
        stack.close()


async def _count_statements(owner_url: str) -> None:
    connection = await asyncpg.connect(owner_url)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await connection.close()


async def statements_by_role(owner_url: str) -> dict[str, int]:
    """How many statements each role has run so far, BEGIN and COMMIT included: each is a round trip.

    Left out is what the ledger's own check runs inside of COMMIT.
    """
    connection = await asyncpg.connect(owner_url)
    try:
        rows = await connection.fetch(
            """
            SELECT rolname, sum(calls)::bigint AS calls
            FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid
            WHERE toplevel AND query NOT LIKE '%= checked%' GROUP BY rolname
            """
        )
        return {row["rolname"]: row["calls"] for row in rows}
    finally:
        await connection.close()
