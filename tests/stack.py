"""The servers that tests run against: the same programs as `mercato up`, on free ports, with data that is thrown away.

They live in a thread with an event loop of its own, so that a test that blocks does not keep them from being read.
"""

import asyncio
import os
import random
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg
import httpx

from cli import embedded, probes, programs
from cli.databases import provision_processor
from cli.process import Program
from cli.supervisor import Supervisor
from core.migrations import migrate
from core.settings import Settings, derived_role_url, role_name
from models.types import Service

T = TypeVar("T")
HOST = "127.0.0.1"

# What the programs under test are told. Retries come soon, so that healing can be watched.
TEST_ENVIRONMENT = {
    "MERCATO_ENVIRONMENT": "test",
    "MERCATO_RATE_LIMITS": "off",
    "MERCATO_ACCESS_TOKEN_SECONDS": "3600",  # staff sign in once a folder, however slow the machine
    "MERCATO_LOG_LEVEL": "INFO",
    "MERCATO_FAST_STEP_SECONDS": "1",
    "MERCATO_ROUND_SECONDS": "4",
    "MERCATO_ROUND_PAUSE_SECONDS": "2",
    "MERCATO_RECONCILE_EVERY_SECONDS": "2",
    "MERCATO_RECONCILE_AFTER_SECONDS": "5",
    "MERCATO_PROCESSOR_TIMEOUT_SECONDS": "3",
    "MERCATO_STREAM_HEARTBEAT_SECONDS": "2",
}

NEVER = "1000000000"  # seconds between two passes of reconciliation, counted from 1970: the next is due in 2033

_given_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, below the range from which the kernel gives ports to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            if port not in _given_ports and probe.connect_ex((HOST, port)) != 0:
                _given_ports.add(port)
                return port


class Stack:
    """Starts each server when it is first asked for; `close` ends all. For every thread but its own loop's.

    `durable`: PostgreSQL keeps what it has committed when it is stopped and started again, which costs some speed.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self.directory = Path(tempfile.mkdtemp(prefix="mercato-test-"))
        self.log = self.directory / "servers.log"
        self._log_file = self.log.open("a", buffering=1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stack", daemon=True)
        self._thread.start()
        self.supervisor = self.run(self._make_supervisor())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the stack's own loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def awaitable(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Run in the stack's own loop; await it in the test's."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        self.run(self.supervisor.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._log_file.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @cached_property
    def postgres(self) -> embedded.Postgres:
        password = self.directory / "postgres.password"
        password.write_text(secrets.token_hex(16))
        server = embedded.Postgres(self.directory / "postgres", HOST, free_port(), password, self._durable)
        self.run(self.supervisor.start(embedded.postgres(server)))
        return server

    @cached_property
    def redis_url(self) -> str:
        port = free_port()
        self.run(self.supervisor.start(embedded.valkey(self.directory / "valkey", HOST, port, durable=False)))
        return f"redis://{HOST}:{port}/0"

    @cached_property
    def temporal_ui_port(self) -> int:
        return free_port()

    @cached_property
    def temporal_address(self) -> str:
        port = free_port()
        program = embedded.temporal(self.directory / "temporal.db", HOST, port, self.temporal_ui_port)
        self.run(self.supervisor.start(program))
        return f"{HOST}:{port}"

    @cached_property
    def template(self) -> str:
        """A database with every migration in it, to be cloned."""
        server, name = self.postgres, "template_mercato"
        self.run(_create_database(server.url("postgres"), name, "template1"))
        self.run(migrate(server.url(name)))
        return name

    def make_database(self, name: str) -> str:
        """A fresh migrated database; the owner's address of it."""
        self.run(_create_database(self.postgres.url("postgres"), name, self.template))
        return self.postgres.url(name)

    async def _make_supervisor(self) -> Supervisor:
        return Supervisor(lambda name, line: print(f"{name} | {line}", file=self._log_file))


@dataclass
class Running:
    """One process under test."""

    stack: Stack
    program: Program

    @property
    def pid(self) -> int | None:
        return self.stack.supervisor.programs[self.program.name].process.pid

    @property
    def alive(self) -> bool:
        return self.stack.supervisor.programs[self.program.name].state == "ready"

    def start(self) -> Self:
        self.stack.run(self.stack.supervisor.start(self.program))
        return self

    async def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.stack.supervisor.programs[self.program.name].process.kill()
        await self.died()

    async def died(self) -> None:
        """Wait until it has ended by itself."""
        task = self.stack.supervisor.programs[self.program.name].task
        if task is not None:
            await self.stack.awaitable(_finished(task))

    async def stop(self) -> None:
        """SIGTERM, and wait until it has ended in good order."""
        await self.stack.awaitable(self.stack.supervisor.stop(self.program.name))

    async def restart(self, environment: Mapping[str, str] | None = None) -> None:
        """End it if it runs, start it again with `environment` on top of its own (for this run only)."""
        await self.stop()
        program = replace(self.program, environment={**(self.program.environment or {}), **(environment or {})})
        await self.stack.awaitable(self.stack.supervisor.start(program))

    def log(self) -> list[str]:
        """Its last lines."""
        return list(self.stack.supervisor.programs[self.program.name].process.last_lines)


@dataclass
class RunningApi(Running):
    base_url: str = ""


@dataclass
class Platform:
    """The whole platform as real processes over one fresh database. `env` is what its API and worker run with."""

    stack: Stack
    base_url: str
    owner_url: str
    redis_url: str
    temporal_address: str
    processor_url: str
    processor_database_url: str
    env: dict[str, str]
    settings: Settings  # with the owner's address: for check, seed and the like
    processor: Running
    api: RunningApi = field(init=False)
    worker: Running = field(init=False)

    def start_api(
        self,
        services: Sequence[Service] = (),
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        *,
        ready: str = "/health/ready",
    ) -> RunningApi:
        """Another API process: all services, or some of them alone; `ready` may be /health/live for a crippled one."""
        port = port or free_port()
        program = programs.api({**self.env, **(env or {})}, HOST, port, services, name=f"api-{port}")
        program = replace(program, ready=probes.http(HOST, port, ready))
        return RunningApi(self.stack, replace(program, restarts=0), f"http://{HOST}:{port}").start()

    def start_worker(self, env: Mapping[str, str] | None = None) -> Running:
        """Another worker process."""
        port = free_port()
        program = programs.worker({**self.env, **(env or {})}, HOST, port, name=f"worker-{port}")
        return Running(self.stack, replace(program, restarts=0)).start()


def start_processor(stack: Stack, owner_url: str) -> Running:
    """The mock processor with its own role and schema in the database of `owner_url`."""
    port = free_port()
    program = programs.processor(stack.run(provision_processor(owner_url)), HOST, port)
    return Running(stack, replace(program, name=f"processor-{port}", restarts=0)).start()


def processor_address(processor: Running) -> str:
    return f"http://{HOST}:{processor.program.name.removeprefix('processor-')}"


def start_platform(stack: Stack, owner_url: str, processor: Running, env: Mapping[str, str] | None = None) -> Platform:
    """Seed the database of `owner_url`, then start API and worker side by side."""
    port = free_port()
    settings = Settings(
        environment="test",
        rate_limits="off",
        data_dir=stack.directory / "mercato",
        database_url=owner_url,
        processor_database_url=derived_role_url(owner_url, role_name("processor")),
        redis_url=stack.redis_url,
        temporal_address=stack.temporal_address,
        temporal_ui_url=f"http://{HOST}:{stack.temporal_ui_port}",
        processor_url=processor_address(processor),
        public_url=f"http://{HOST}:{port}",
        port=port,
    )
    platform = Platform(
        stack=stack,
        base_url=settings.public_url,
        owner_url=owner_url,
        redis_url=settings.redis_url,
        temporal_address=settings.temporal_address,
        processor_url=settings.processor_url,
        processor_database_url=settings.processor_database_url,
        env=programs.app_environment(settings, {**TEST_ENVIRONMENT, **(env or {})}),
        settings=settings,
        processor=processor,
    )
    listening = stack.run(_listen(settings))
    platform.env["MERCATO_WEBHOOK_SECRET"] = listening
    stack.run(_seed(settings))
    api = replace(programs.api(platform.env, HOST, port), restarts=0)
    worker = replace(programs.worker(platform.env, HOST, free_port()), restarts=0)
    stack.run(stack.supervisor.start(api, worker))
    platform.api = RunningApi(stack, api, settings.public_url)
    platform.worker = Running(stack, worker)
    return platform


async def _create_database(admin_url: str, name: str, template: str) -> None:
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    finally:
        await connection.close()


async def _listen(settings: Settings) -> str:
    """Have the processor tell this platform of what happens; the secret it signs with. By its API, as a shop would."""
    from models.types import PROCESSOR_EVENTS

    key = settings.processor_api_key.get_secret_value()
    async with httpx.AsyncClient(base_url=settings.processor_url) as http:
        made = await http.post(
            "/v1/webhook_endpoints",
            data={"url": f"{settings.public_url}/api/payments/webhook", "enabled_events[]": list(PROCESSOR_EVENTS)},
            headers={"Authorization": f"Bearer {key}"},
        )
    secret: str = made.raise_for_status().json()["secret"]
    return secret


async def _seed(settings: Settings) -> None:
    from cli.seed import seed

    await seed(settings)


async def _finished(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def inherited_environment() -> dict[str, str]:
    """This process's environment without any setting of ours: tests decide themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MERCATO_")}
