"""docker-compose.yml without an engine: its containers as processes of this machine, in production.

Each of our programs runs with the command and the environment that Compose renders for it; only host names and ports
are replaced. PostgreSQL and Valkey are the embedded ones, Temporal is its development server.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from cli import embedded, probes, programs
from cli.databases import ensure_database
from cli.process import Program
from core.settings import SERVICE_PORTS, Settings
from models.types import Service
from tests.gateway import Gateway, running_gateway
from tests.stack import HOST, Stack, free_port, inherited_environment

LISTENING = {"postgres": 5432, "valkey": 6379, "processor": 5010} | {s.value: p for s, p in SERVICE_PORTS.items()}


@dataclass
class ComposedStack:
    """`places` is where each container's port is found on this machine."""

    stack: Stack
    services: Mapping[str, dict[str, Any]]
    namespace: str
    places: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in LISTENING})
    started: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def running(cls, stack: Stack, services: Mapping[str, dict[str, Any]], namespace: str) -> AsyncIterator[Self]:
        """Everything but the gateway, in the order that `depends_on` gives."""
        composed = cls(stack, services, namespace)
        try:
            await composed._start(*composed._servers())
            await stack.awaitable(ensure_database(composed.environment("migrate")["MERCATO_DATABASE_URL"]))
            await composed.run_job("migrate")
            await composed.run_job("seed")
            await composed._start(composed._program("processor", "/health"))
            await composed._start(*(composed._program(name.value, "/health/ready") for name in Service))
            await composed._start(composed._worker())
            yield composed
        finally:
            for name in reversed(composed.started):
                await stack.awaitable(stack.supervisor.stop(name))

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Gateway]:
        addresses = {service: f"http://{HOST}:{self.places[service.value]}" for service in Service}
        async with running_gateway(self.stack, addresses) as gateway:
            yield gateway

    def environment(self, container: str) -> dict[str, str]:
        """What Compose gives the container, with the addresses of this machine."""
        places = {f"{name}:{port}": f"{HOST}:{self.places[name]}" for name, port in LISTENING.items()}
        places |= {"temporal:7233": self.stack.temporal_address}
        given = dict(self.services[container]["environment"])
        for name, value in given.items():
            for inside, here in places.items():
                value = value.replace(f"//{inside}", f"//{here}").replace(f"@{inside}", f"@{here}")
                given[name] = here if value == inside else value
        moved = {name: str(free_port()) for name in given if name.endswith("_METRICS_PORT")}
        proxies = {"MERCATO_TRUSTED_PROXIES": HOST} if "MERCATO_TRUSTED_PROXIES" in given else {}
        here = {"MERCATO_HOST": HOST, "MERCATO_TEMPORAL_NAMESPACE": self.namespace, "PYTHONUNBUFFERED": "1"}
        return {**inherited_environment(), **given, **moved, **proxies, **here, "MERCATO_DATA_DIR": "/nowhere"}

    async def run_job(self, container: str, *command: str, typed: str = "") -> None:
        """The container's command, or another one in its place, to its end."""
        process = await asyncio.create_subprocess_exec(
            *(*programs.MERCATO, *(command or self.services[container]["command"])),
            env=self.environment(container),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate(typed.encode())
        assert process.returncode == 0, said.decode()

    def owners_settings(self) -> Settings:
        """For `mercato check`, which reads all."""
        owner, orders = self.environment("migrate"), self.environment("orders")
        return Settings(
            environment="test",
            database_url=owner["MERCATO_DATABASE_URL"],
            temporal_address=orders["MERCATO_TEMPORAL_ADDRESS"],
            temporal_namespace=self.namespace,
            processor_url=orders["MERCATO_PROCESSOR_URL"],
            processor_api_key=orders["MERCATO_PROCESSOR_API_KEY"],
        )

    async def _start(self, *started: Program) -> None:
        self.started += [program.name for program in started]
        await self.stack.awaitable(self.stack.supervisor.start(*started))

    def _servers(self) -> tuple[Program, Program]:
        folder = self.stack.directory / "composed"
        folder.mkdir()
        password = folder / "postgres.password"
        password.write_text(self.services["postgres"]["environment"]["POSTGRES_PASSWORD"])
        server = embedded.Postgres(folder / "postgres", HOST, self.places["postgres"], password, durable=False)
        valkey = embedded.valkey(folder / "valkey", HOST, self.places["valkey"])
        where = ["--bind", HOST, "--port", str(self.places["valkey"]), "--dir", str(folder / "valkey")]
        command = [valkey.command[0], *self.services["valkey"]["command"][1:], *where]
        return (
            replace(embedded.postgres(server), name="composed-postgres"),
            replace(valkey, name="composed-valkey", command=command),
        )

    def _program(self, container: str, health: str) -> Program:
        port = self.places[container]
        return Program(
            name=f"composed-{container}",
            command=[*programs.MERCATO, *self.services[container]["command"], "--port", str(port)],
            environment=self.environment(container),
            ready=probes.http(HOST, port, health),
            restarts=0,
        )

    def _worker(self) -> Program:
        port = free_port()
        return Program(
            name="composed-worker",
            command=[*programs.MERCATO, *self.services["worker"]["command"]],
            environment={**self.environment("worker"), "MERCATO_WORKER_METRICS_PORT": str(port)},
            ready=probes.http(HOST, port, "/health/ready"),
            restarts=0,
            stop_seconds=15,
        )
