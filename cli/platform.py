"""What `mercato up` runs: servers, migrations, seed, processor, API, worker, and in which order."""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from cli import embedded, probes, programs
from cli.process import Program, ProgramFailed, Write
from cli.running import Running, Unreachable
from cli.secret_files import owner_password
from cli.supervisor import Supervised, Supervisor
from core.settings import Settings

COLOURS = (36, 35, 33, 32, 34, 96, 95, 93)
FOR_OTHER_COMMANDS = (
    *("database_url", "processor_database_url", "redis_url", "temporal_address", "temporal_ui_url", "processor_url"),
    *("public_url", "host", "port", "worker_metrics_port"),
)


class Stopped(Exception):
    """Somebody asked for the end before everything was ready."""


@dataclass(frozen=True)
class Variation:
    """How a run differs from an ordinary one: for platforms that are made to be broken."""

    environment: Mapping[str, str] = field(default_factory=dict)  # of API and workers, beside the addresses
    workers: Sequence[int] = ()  # metrics ports of workers beside the first
    restarts: int | None = None  # of every program until it is given up
    write: Write | None = None  # where lines go instead of standard output


class Platform:
    """One run. Addresses left empty in `settings` are filled in with the embedded servers'."""

    def __init__(self, settings: Settings, variation: Variation | None = None) -> None:
        self.settings = settings
        self.variation = variation or Variation()
        self.embeds = {
            "postgres": not settings.database_url,
            "valkey": not settings.redis_url,
            "temporal": not settings.temporal_address,
            "processor": not settings.processor_url,
        }
        last = Running.read(settings.data_dir)
        self.ended_badly = last is not None and last.state != "stopped"
        self.state = Running(pid=os.getpid(), state="starting")
        self._supervisor: Supervisor | None = None
        self._stop = asyncio.Event()
        self._asked_at: float | None = None
        self._colours: dict[str, int] = {}
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    @property
    def ports(self) -> dict[str, int]:
        """What this run listens on, by the setting that moves it."""
        settings = self.settings
        wanted = {"MERCATO_PORT": settings.port, "MERCATO_WORKER_METRICS_PORT": settings.worker_metrics_port}
        if self.embeds["postgres"]:
            wanted["MERCATO_POSTGRES_PORT"] = settings.postgres_port
        if self.embeds["valkey"]:
            wanted["MERCATO_REDIS_PORT"] = settings.redis_port
        if self.embeds["temporal"]:
            wanted["MERCATO_TEMPORAL_PORT"] = settings.temporal_port
            wanted["MERCATO_TEMPORAL_UI_PORT"] = settings.temporal_ui_port
        if self.embeds["processor"]:
            wanted["MERCATO_PROCESSOR_PORT"] = settings.processor_port
        return wanted

    @property
    def programs(self) -> Mapping[str, Supervised]:
        """What runs, by name; empty before `start`."""
        return self._supervisor.programs if self._supervisor else {}

    def ask_to_stop(self) -> None:
        """First asked: end in order. Asked again while that goes on: end at once.

        One wish may arrive twice, from `make` and from the terminal: within a second it counts once.
        """
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > 1 and self._supervisor:
            self._supervisor.kill()
        self._stop.set()

    async def start(self) -> None:
        """Return when everything is ready.

        Raises:
            Stopped: `ask_to_stop` came first.
            ProgramFailed: a program did not start.
            Unreachable: an outside server does not answer.
        """
        self._supervisor = Supervisor(self.variation.write or self._write, self._record)
        self._record()
        starting = asyncio.create_task(self._start(self._supervisor))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise Stopped
        starting.result()
        self.state.state = "ready"
        self._record()

    async def until_stopped(self) -> ProgramFailed | None:
        """Wait for `ask_to_stop`, or for a program that is given up: that one's failure."""
        assert self._supervisor is not None
        stopping = asyncio.create_task(self._stop.wait())
        failing = asyncio.create_task(self._supervisor.given_up())
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        failing.cancel()
        return failing.result() if failing.done() and not failing.cancelled() else None

    async def stop(self) -> None:
        """End everything: what faces people first, servers last."""
        self.state.state = "stopping"
        if self._supervisor:
            await self._supervisor.stop()
        self.state.state = "stopped"
        self._record()

    async def _start(self, supervisor: Supervisor) -> None:
        await self._reach_outside_servers()
        # Imports take as long as the servers do: meanwhile, and not on top of it.
        imports = asyncio.to_thread(importlib.import_module, "core.migrations")
        await _all(supervisor.start(*self._varied(*self._servers())), imports)
        await self._prepare_databases(supervisor)
        settings = self.settings
        environment = programs.app_environment(settings, {**self._log_format(), **self.variation.environment})
        host, needs = settings.host, tuple(supervisor.programs)
        apps = [
            programs.api(environment, host, settings.port, needs=needs),
            programs.worker(environment, host, settings.worker_metrics_port, needs=needs),
        ]
        for number, port in enumerate(self.variation.workers, 2):
            apps.append(programs.worker(environment, host, port, needs, f"worker-{number}"))
        await _all(supervisor.start(*self._varied(*apps)), self._seed())
        self.state.addresses = self._addresses()

    async def _reach_outside_servers(self) -> None:
        settings = self.settings
        outside = {
            "MERCATO_DATABASE_URL": (settings.database_url, 5432),
            "MERCATO_REDIS_URL": (settings.redis_url, 6379),
            "MERCATO_TEMPORAL_ADDRESS": (settings.temporal_address and f"//{settings.temporal_address}", 7233),
            "MERCATO_PROCESSOR_URL": (settings.processor_url, 80),
        }
        for setting, (address, usual_port) in outside.items():
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port or usual_port
            if address and not await probes.tcp(host, port)():
                raise Unreachable(f"{setting} is set, but nothing answers at {host}:{port}.")

    def _servers(self) -> list[Program]:
        """The embedded servers, with their addresses written into the settings."""
        settings, servers = self.settings, []
        data, host = settings.data_dir, settings.host
        if self.embeds["postgres"]:
            server = embedded.Postgres(data / "postgres", host, settings.postgres_port, owner_password(data))
            settings.database_url = server.url()
            servers.append(embedded.postgres(server))
        if self.embeds["valkey"]:
            settings.redis_url = f"redis://{host}:{settings.redis_port}/0"
            servers.append(embedded.valkey(data / "valkey", host, settings.redis_port))
        if self.embeds["temporal"]:
            settings.temporal_address = f"{host}:{settings.temporal_port}"
            settings.temporal_ui_url = f"http://{host}:{settings.temporal_ui_port}"
            file = data / "temporal/temporal.db"
            port, ui_port = settings.temporal_port, settings.temporal_ui_port
            servers.append(embedded.temporal(file, host, port, ui_port, settings.temporal_namespace))
        if "public_url" not in settings.model_fields_set:
            settings.public_url = f"http://{host}:{settings.port}"
        return servers

    def _varied(self, *given: Program) -> list[Program]:
        restarts = self.variation.restarts
        return [one if restarts is None else replace(one, restarts=restarts) for one in given]

    async def _prepare_databases(self, supervisor: Supervisor) -> None:
        from cli.databases import ensure_database, provision_processor, refuse_unusable
        from core.migrations import migrate

        settings, work = self.settings, []
        if self.embeds["postgres"]:
            await ensure_database(settings.database_url)
        else:
            await refuse_unusable(settings.database_url)
        if self.embeds["processor"]:
            host, port = settings.host, settings.processor_port
            url = settings.processor_database_url or await provision_processor(settings.database_url)
            settings.processor_database_url = url
            settings.processor_url = f"http://{host}:{port}"
            needs = ("postgres",) if self.embeds["postgres"] else ()
            webhook = programs.webhook_environment(settings, f"http://{host}:{settings.port}")
            processor = programs.processor(url, host, port, needs, webhook)
            work.append(supervisor.start(*self._varied(processor)))
        await _all(migrate(settings.database_url), *work)

    async def _seed(self) -> None:
        seed = (await asyncio.to_thread(importlib.import_module, "cli.seed")).seed
        await seed(self.settings)

    def _log_format(self) -> dict[str, str]:
        chosen = "log_format" in self.settings.model_fields_set or not sys.stdout.isatty()
        return {} if chosen else {"MERCATO_LOG_FORMAT": "text"}

    def _addresses(self) -> dict[str, str]:
        settings = self.settings
        return {
            "API": f"{settings.public_url}  (docs: {settings.public_url}/docs)",
            "Temporal UI": settings.temporal_ui_url,
            "Temporal": f"{settings.temporal_address}, namespace {settings.temporal_namespace}",
            "Processor": settings.processor_url,
            "Sign in as": "shopper@mercato.test, support@mercato.test or admin@mercato.test",
            "Password": "mercato-demo-pass",
            "Data": str(settings.data_dir),
            "Stop with": "Ctrl-C, or `mercato down` from elsewhere",
        }

    def _record(self) -> None:
        supervised = self._supervisor.programs.values() if self._supervisor else ()
        self.state.programs = [
            {"name": one.program.name, "state": one.state, "pid": one.process.pid, "restarts": one.restarts}
            for one in supervised
        ]
        self.state.settings = {name: str(getattr(self.settings, name)) for name in FOR_OTHER_COMMANDS}
        self.state.write(self.settings.data_dir)

    def _write(self, name: str, line: str) -> None:
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        prefix = f"{name:<9} | "
        text = f"\x1b[{colour}m{prefix}\x1b[0m{line}\n" if self._coloured else f"{prefix}{line}\n"
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (BrokenPipeError, ValueError):  # whoever read along went away; the shop stays open
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115


async def _all(*work: Awaitable[Any]) -> None:
    """Side by side; the first failure ends the others and is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
