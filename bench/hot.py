"""`make bench-hot`: confirmed orders a second when all buy one product, beside orders spread over a thousand.

In turns on one platform, so that whatever else the machine is doing meets both. Meanwhile somebody browses, and the
waits for locks are watched.
"""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass, field

import asyncpg
import httpx
import uvloop

from bench import report, shoppers
from bench.machine import machine
from bench.platform import Measured, measured

PRODUCTS = 1_000
BAR = 0.6
WATCH_SECONDS = 0.05
BROWSE_SECONDS = 0.1

_LONGEST_WAIT = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8 FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND usename = 'mercato_catalog'
"""


@dataclass
class Case:
    """Orders on these products, and what was seen meanwhile (seconds)."""

    name: str
    products: list[int]
    rounds: list[shoppers.Round] = field(default_factory=list)
    lock_waits: list[float] = field(default_factory=lambda: [0.0])
    browsing: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        latencies = [seconds * 1000 for one in self.rounds for seconds in one.latencies]
        browsing = [seconds * 1000 for seconds in self.browsing]
        return [
            self.name,
            str(report.Summary.of([one.rate for one in self.rounds])),
            f"{report.percentile(latencies, 0.5):.0f}",
            f"{report.percentile(latencies, 0.95):.0f}",
            f"{max(self.lock_waits) * 1000:.0f}",
            f"{report.percentile(browsing, 0.95):.1f}",
            str(sum(len(one.failures) for one in self.rounds)),
        ]

    @property
    def rate(self) -> float:
        return report.Summary.of([one.rate for one in self.rounds]).median


async def main(arguments: argparse.Namespace) -> bool:
    """Run everything and print it; whether the bar was met."""
    with measured() as platform:
        settings = platform.platform.settings
        report.console.print(f"[bold]One product, or a thousand[/] on {machine()}\n")
        buyers = await shoppers.sign_up(settings, arguments.orders)
        products = await shoppers.stock_up(settings, PRODUCTS)
        spread, hot = Case("spread over 1,000", products), Case("all buy one", products[:1])
        for number in range(arguments.rounds + 1):
            for case in (spread, hot):
                await turn(platform, case, buyers, arguments.at_once, seed=number)
                if number == 0:
                    case.rounds.clear()  # that was the warm-up
        oversold = await shoppers.oversold_units(platform.owner_url)
    columns = ["", "orders/s", "p50 ms", "p95 ms", "longest lock wait ms", "browse p95 ms", "failed"]
    report.table("Confirmed orders", columns, [spread.row(), hot.row()])
    report.console.print(f"oversold units: {oversold}")
    failed = sum(len(one.failures) for case in (spread, hot) for one in case.rounds)
    ratio = hot.rate / spread.rate
    met = report.bars([report.Bar("one product ÷ a thousand", ratio, BAR)])
    return met and oversold == 0 and failed == 0


async def turn(platform: Measured, case: Case, buyers: list[shoppers.Shopper], at_once: int, seed: int) -> None:
    """One round of a case, watched."""
    base_url = platform.platform.base_url
    await shoppers.fill_carts(base_url, buyers, case.products, seed)
    watching = [
        asyncio.create_task(watch_locks(platform.owner_url, case)),
        asyncio.create_task(browse(base_url, case)),
    ]
    case.rounds.append(await shoppers.buy([base_url], buyers, at_once))
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    report.console.print(f"{case.name}: {case.rounds[-1].rate:.1f} orders/s")


async def watch_locks(owner_url: str, case: Case) -> None:
    """How long the catalogue's statements wait for one another."""
    connection = await asyncpg.connect(owner_url)
    try:
        while True:
            case.lock_waits.append(await connection.fetchval(_LONGEST_WAIT))
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        await connection.close()


async def browse(base_url: str, case: Case) -> None:
    """Somebody who only looks must not suffer."""
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as http:
        while True:
            began = time.perf_counter()
            (await http.get("/api/products", params={"page": 1 + len(case.browsing) % 50})).raise_for_status()
            case.browsing.append(time.perf_counter() - began)
            await asyncio.sleep(BROWSE_SECONDS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="exit 0 also when the bar is missed")
    parser.add_argument("--orders", type=int, default=150, help="orders in each round")
    parser.add_argument("--at-once", type=int, default=16, help="shoppers who buy at the same time")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    met = uvloop.run(main(given))
    sys.stdout.flush()
    os._exit(0 if met or given.report else 1)  # as every program that holds a Temporal client
