"""The four that take turns: the platform, the bare engine, the same steps on DBOS, and the ceiling."""

import random
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import asyncpg
import httpx

from bench import bare_engine, shoppers
from bench.platform import Measured
from bench.report import Summary
from bench.shoppers import Round, Shopper, side_by_side
from cli import probes
from cli.process import Program
from core import temporal
from tests.stack import HOST, free_port

TWINS = 2  # web processes of the DBOS twin, which has no worker and no server: as many as cores


@dataclass(frozen=True)
class Load:
    orders: int  # in each round
    at_once: int
    rounds: int


@dataclass
class Contestant:
    """`run` does one round of orders, after `prepare(seed)`, with `programs` of its own beside the servers.

    What came of the rounds is collected here.
    """

    name: str
    programs: tuple[str, ...]
    run: Callable[[], Awaitable[Round]]
    prepare: Callable[[int], Awaitable[None]]
    rounds: list[Round] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)  # seconds by component
    statements: dict[str, int] = field(default_factory=dict)  # by role

    @property
    def orders(self) -> int:
        return sum(len(one.orders) for one in self.rounds)

    @property
    def rate(self) -> Summary:
        """Orders a second."""
        return Summary.of([one.rate for one in self.rounds])

    @property
    def latencies(self) -> list[float]:
        return [seconds for one in self.rounds for seconds in one.latencies]

    @property
    def failures(self) -> list[str]:
        return [failure for one in self.rounds for failure in one.failures]

    def add(
        self,
        cpu_before: Mapping[str, float],
        cpu_after: Mapping[str, float],
        statements_before: Mapping[str, int],
        statements_after: Mapping[str, int],
    ) -> None:
        """What a round used."""
        for component, seconds in cpu_after.items():
            self.cpu[component] = self.cpu.get(component, 0) + seconds - cpu_before.get(component, 0)
        for role, calls in statements_after.items():
            self.statements[role] = self.statements.get(role, 0) + calls - statements_before.get(role, 0)

    def forget(self) -> None:
        self.rounds, self.cpu, self.statements = [], {}, {}


async def field_of(
    platform: Measured,
    buyers: list[Shopper],
    products: list[int],
    steps: int,
    load: Load,
    only: Collection[str] = (),
) -> list[Contestant]:
    """Start what they need and name them, or those of them that are asked for."""

    async def fill_carts(seed: int) -> None:
        await shoppers.fill_carts(platform.platform.base_url, buyers, products, seed)

    async def nothing(_: int) -> None:
        return

    def through(*urls: str) -> Callable[[], Awaitable[Round]]:
        return lambda: shoppers.buy(urls, buyers, load.at_once)

    environment = {**platform.platform.env, "MERCATO_DATABASE_URL": platform.owner_url}
    found = []
    if not only or "mercato" in only:
        found.append(Contestant("mercato", ("api", "worker"), through(platform.platform.base_url), fill_carts))
    if not only or "bare" in only:
        client = await temporal.connect(platform.platform.settings)
        _start(platform, "bare", "bench.bare_engine", environment, "/health/ready")
        found.append(
            Contestant(
                "bare engine", ("bare",), lambda: bare_engine.run(client, load.orders, steps, load.at_once), nothing
            )
        )
    if not only or "dbos" in only:
        system = await _engine_database(platform.owner_url)
        urls = [
            _start(platform, f"dbos-{nth}", "bench.dbos_twin", environment, "/health/live", system)
            for nth in range(TWINS)
        ]
        found.append(Contestant("dbos", ("dbos",), through(*urls), fill_carts))
    if not only or "ceiling" in only:
        url = _start(platform, "ceiling", "bench.ceiling", environment, "/health")
        found.append(Contestant("ceiling", ("ceiling",), lambda: _buy_at_the_ceiling(url, load), nothing))
    return found


async def _engine_database(owner_url: str) -> str:
    """A database of its own for DBOS, on the same server."""
    connection = await asyncpg.connect(owner_url)
    await connection.execute("CREATE DATABASE dbos")
    await connection.close()
    return owner_url.rpartition("/")[0] + "/dbos"


def _start(platform: Measured, name: str, module: str, environment: Mapping[str, str], ready: str, *more: str) -> str:
    """Run a module with a free port as its argument, wait until it is ready; its address."""
    port = free_port()
    platform.run(
        Program(
            name=name,
            command=[sys.executable, "-m", module, str(port), *more],
            environment=environment,
            ready=probes.http(HOST, port, ready),
            restarts=0,
        )
    )
    return f"http://{HOST}:{port}"


async def _buy_at_the_ceiling(url: str, load: Load) -> Round:
    result = Round()
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:

        async def place() -> None:
            lines = [{"product_id": product, "quantity": 1} for product in random.sample(range(1, 1001), 2)]
            began = time.perf_counter()
            answer = await http.post("/orders", json={"lines": lines})
            result.note(answer, began)

        began = time.perf_counter()
        await side_by_side(load.at_once, (place() for _ in range(load.orders)))
        result.seconds = time.perf_counter() - began
    return result
