"""`make bench-checkout`: what an order costs, against the bare engine, the same steps on DBOS, and a ceiling.

One run, in turns: round after round, each of the four does the same number of orders, so that whatever else the machine
is doing meets all of them. Load generator, servers and databases share the machine.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvloop

from bench import checkout_report, report, shoppers
from bench.contestants import Contestant, Load, field_of
from bench.machine import machine
from bench.platform import Measured, measured, statements_by_role
from core import temporal
from workflows import options

PRODUCTS = 1000
SETTLE_SECONDS = 0.5  # for what servers do after they have answered, so that it is counted where it belongs


async def main(arguments: argparse.Namespace) -> bool:
    """Run everything, print it and write it down; whether the bars were met."""
    load = Load(arguments.orders, arguments.at_once, arguments.rounds)
    with measured() as platform:
        settings = platform.platform.settings
        report.console.print(f"[bold]What an order costs[/] on {machine()}\n")
        buyers = await shoppers.sign_up(settings, load.orders)
        products = await shoppers.stock_up(settings, PRODUCTS)
        history = await history_of_an_order(platform, buyers[0], products)
        contestants = await field_of(platform, buyers, products, history.steps, load, arguments.only)
        for one in contestants:
            await turn(platform, one, seed=0)
            one.forget()  # that was the warm-up
        for number in range(1, load.rounds + 1):
            for one in contestants:
                await turn(platform, one, seed=number)
                report.console.print(f"round {number} {one.name}: {one.rounds[-1].rate:.1f} orders/s")
        oversold = await shoppers.oversold_units(platform.owner_url)
    return checkout_report.conclude(load, contestants, history, oversold, arguments.json, arguments.plot)


async def turn(platform: Measured, one: Contestant, seed: int) -> None:
    """One round, with what it used of each component."""
    await one.prepare(seed)
    await asyncio.sleep(SETTLE_SECONDS)
    cpu, statements = platform.cpu(), await statements_by_role(platform.owner_url)
    with platform.alone(*one.programs):
        one.rounds.append(await one.run())
        await asyncio.sleep(SETTLE_SECONDS)
    one.add(cpu, platform.cpu(), statements, await statements_by_role(platform.owner_url))


async def history_of_an_order(
    platform: Measured, buyer: shoppers.Shopper, products: list[int]
) -> checkout_report.History:
    """Place one order and read what the engine keeps of it."""
    base_url = platform.platform.base_url
    await shoppers.fill_carts(base_url, [buyer], products, seed=0)
    bought = await shoppers.buy([base_url], [buyer], at_once=1)
    client = await temporal.connect(platform.platform.settings)
    handle = client.get_workflow_handle(options.checkout_workflow_id(bought.orders[0]))
    await handle.result()
    return checkout_report.History.of(await handle.fetch_history())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="exit 0 also when a bar is missed")
    parser.add_argument("--orders", type=int, default=150, help="orders in each round")
    parser.add_argument("--at-once", type=int, default=16, help="shoppers who buy at the same time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="of: mercato, bare, dbos, ceiling")
    parser.add_argument("--json", type=Path, default=Path(".mercato/bench/checkout.json"))
    parser.add_argument("--plot", type=Path, help="write the plot there (SVG)")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    met = uvloop.run(main(given))
    sys.stdout.flush()
    os._exit(0 if met or given.report else 1)  # as every program that holds a Temporal client
