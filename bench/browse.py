"""`make bench-browse`: what a list, a product, a search and a suggestion cost, beside bare Starlette in one run."""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.catalogue import fill
from bench.machine import cpu_seconds, machine
from bench.platform import Measured, measured
from bench.report import Bar, Summary, bars, console, table, write_json
from bench.search import BAR_MS, Explained, explain_all
from cli import probes
from cli.demo_products import SHELVES
from cli.process import Program
from core.settings import derived_role_url, role_name
from models.types import Service
from tests.stack import HOST, Running, free_port

PRODUCTS = 100_000
LIST_BAR = 0.7
WARM_UP_SECONDS = 1.0


@dataclass
class Contestant:
    """One kind of request to one server process; every round adds a figure to each list."""

    name: str
    server: Running
    port: int
    paths: list[str]
    against: str = ""  # the contestant that it is divided by
    per_second: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    errors: int = 0
    bytes: int = 0

    def measure(self, seconds: float) -> None:
        assert self.server.pid is not None
        before = cpu_seconds([self.server.pid])
        got = _load(self.port, self.paths, seconds)
        self.cpu_us.append((cpu_seconds([self.server.pid]) - before) / got["requests"] * 1e6)
        self.per_second.append(got["requests_per_second"])
        for name in ("p50", "p95", "p99"):
            getattr(self, name).append(got[name])
        self.errors += got["errors"]
        self.bytes = got["bytes"]

    def row(self) -> list[str]:
        figures = (self.per_second, self.p50, self.p95, self.p99, self.cpu_us)
        return [self.name, *(str(Summary.of(figure)) for figure in figures), f"{self.bytes:,}", str(self.errors)]


def _load(port: int, paths: list[str], seconds: float) -> dict[str, Any]:
    """The generator runs on the last core, the servers on the first (`_alone`)."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.http_load", str(port), str(seconds)],
        input="\n".join(paths),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _alone(server: Running) -> None:
    assert server.pid is not None
    os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})


def _contestants(platform: Measured) -> list[Contestant]:
    ours = platform.platform.api
    port = int(ours.base_url.rpartition(":")[2])
    dice = random.Random("mercato:browse")
    products = [dice.randrange(2000, PRODUCTS) for _ in range(500)]
    listed = _fetch(f"{ours.base_url}/api/products")
    product = _fetch(f"{ours.base_url}/api/products/{products[0]}")
    bare, bare_port = _start_bare(platform, listed, product)
    for server in (ours, bare):
        _alone(server)
    words = [f"{kind} {thing}" for shelf in SHELVES for kind in shelf.kinds for thing in shelf.things]
    dice.shuffle(words)
    searches = [f"/api/products?search={_quoted(word)}" for word in words]
    typed = sorted({word[:length] for phrase in words for word in phrase.split() for length in range(1, 9)})
    dice.shuffle(typed)
    suggestions = [f"/api/products/suggest?q={_quoted(letters)}" for letters in typed]
    return [
        Contestant("ours: list", ours, port, ["/api/products"], "Starlette: bytes of the list"),
        Contestant("Starlette: bytes of the list", bare, bare_port, ["/static/list"]),
        Contestant("Starlette: rows of the list", bare, bare_port, ["/rows/list"]),
        Contestant(
            "ours: one product", ours, port, [f"/api/products/{each}" for each in products], "Starlette: its row"
        ),
        Contestant("Starlette: its bytes", bare, bare_port, ["/static/product"]),
        Contestant("Starlette: its row", bare, bare_port, [f"/rows/products/{each}" for each in products]),
        Contestant("ours: search, none twice a second", ours, port, searches),
        Contestant("ours: suggest, none twice a second", ours, port, suggestions),
    ]


def _start_bare(platform: Measured, listed: bytes, product: bytes) -> tuple[Running, int]:
    port = free_port()
    folder = platform.stack.directory
    files = folder / "list.json", folder / "product.json"
    for file, body in zip(files, (listed, product), strict=True):
        file.write_bytes(body)
    command = [
        sys.executable,
        "-m",
        "bench.bare_starlette",
        str(port),
        _catalogue(platform.owner_url),
        *map(str, files),
    ]
    program = Program(name="bare", command=command, ready=probes.http(HOST, port, "/static/list"), restarts=0)
    return platform.run(program), port


def _search(platform: Measured) -> list[Explained]:
    """In a database of its own: the demo's products would make some suggestions easier to find."""
    owner_url = platform.stack.make_database("search")
    asyncio.run(fill(owner_url, PRODUCTS))
    return asyncio.run(explain_all(_catalogue(owner_url)))


def _catalogue(owner_url: str) -> str:
    return derived_role_url(owner_url, role_name(Service.CATALOG.value))


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _quoted(words: str) -> str:
    return urllib.parse.quote(words)


def _compare(contestants: list[Contestant], rounds: int, seconds: float) -> dict[str, Summary]:
    for contestant in contestants:
        _load(contestant.port, contestant.paths, WARM_UP_SECONDS)
    for nth in range(rounds):
        console.print(f"round {nth + 1} of {rounds}", style="dim")
        for contestant in contestants if nth % 2 == 0 else reversed(contestants):
            contestant.measure(seconds)
    by_name = {contestant.name: contestant for contestant in contestants}
    pairs = [("ours: list", "Starlette: bytes of the list"), ("ours: list", "Starlette: rows of the list")]
    pairs += [("ours: one product", "Starlette: its bytes"), ("ours: one product", "Starlette: its row")]
    return {
        f"{ours} ÷ {other}": Summary.of(
            [a / b for a, b in zip(by_name[ours].per_second, by_name[other].per_second, strict=True)]
        )
        for ours, other in pairs
    }


def _show(contestants: list[Contestant], ratios: dict[str, Summary], searched: list[Explained]) -> None:
    columns = ["16 connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "server CPU µs", "bytes", "errors"]
    table("Medians of the rounds (least to most)", columns, [contestant.row() for contestant in contestants])
    table(
        "Ratios of the rounds",
        ["", "median"],
        [[name, f"{r.median:.2f} ({r.least:.2f} to {r.most:.2f})"] for name, r in ratios.items()],
    )
    rows = [
        [case.name, f"{case.matches:,}", str(case.statements), f"{case.median_ms:.2f}", f"{case.worst_ms:.2f}"]
        for case in searched
    ]
    table(f"Database time at {PRODUCTS:,} products, ms", ["", "matches", "statements", "median", "worst"], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=3, help="a round of one contestant")
    arguments.add_argument("--output", type=Path, default=Path(".mercato/bench/browse.json"))
    arguments.add_argument("--report", action="store_true", help="succeed also when a bar is missed")
    given = arguments.parse_args()
    console.print(f"{machine()}\n")
    with measured() as platform:
        searched = _search(platform)
        asyncio.run(fill(platform.owner_url, PRODUCTS))
        contestants = _contestants(platform)
        ratios = _compare(contestants, given.rounds, given.seconds)
    _show(contestants, ratios, searched)
    slowest = max((case for case in searched if case.within_bar), key=lambda case: case.median_ms)
    wanted = [
        Bar("list ÷ the same bytes from bare Starlette", next(iter(ratios.values())).median, LIST_BAR),
        Bar(f"database time of the slowest, {slowest.name}, ms", slowest.median_ms, BAR_MS, at_most=True),
        Bar("errors", sum(contestant.errors for contestant in contestants), 0, at_most=True),
    ]
    met = bars(wanted)
    write_json(given.output, _figures(contestants, ratios, searched))
    if not met and not given.report:
        raise SystemExit(1)


def _figures(contestants: list[Contestant], ratios: dict[str, Summary], searched: list[Explained]) -> dict[str, Any]:
    figures = ("per_second", "p50", "p95", "p99", "cpu_us", "errors", "bytes")
    return {
        "contestants": {each.name: {name: getattr(each, name) for name in figures} for each in contestants},
        "ratios": {name: vars(summary) for name, summary in ratios.items()},
        "search": [vars(case) for case in searched],
    }


if __name__ == "__main__":
    main()
