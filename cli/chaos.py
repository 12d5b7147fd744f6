"""`mercato chaos`: shoppers and random faults on a platform of its own, then the question whether everything held."""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from cli.api_client import ApiClient
from cli.chaos_blows import Saboteur, Struck
from cli.chaos_listeners import ChaosListener
from cli.chaos_plan import MOST_MINUTES, MOST_RATE, Plan, make_plan
from cli.chaos_platform import make_directory, throw_away_platform
from cli.chaos_report import Run, as_json, print_plan, print_run
from cli.chaos_shoppers import ANSWER_SECONDS, Crowd
from cli.chaos_verdict import judge, until_ready
from cli.console import console
from cli.platform import Platform
from cli.seed import DEMO_PASSWORD

LISTENERS = 4


def chaos(
    seed: Annotated[int, typer.Option(help="The same seed, minutes and rate: the same plan.")] = 7,
    minutes: Annotated[float, typer.Option(min=0.1, max=MOST_MINUTES)] = 5,
    rate: Annotated[float, typer.Option(min=0.1, max=MOST_RATE, help="Orders a second.")] = 5,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what would happen, and when.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary there, too.")] = None,
) -> None:
    """Break a throw-away platform at random while shoppers order; exit with 0 only if everything held and ended."""
    made = make_plan(seed, minutes, rate)
    if plan:
        print_plan(console(), made)
        return
    run = Run(made, make_directory())
    out = console()
    try:
        asyncio.run(_interruptible(run, out))
        print_run(out, run)
        if json_file:
            json_file.write_text(json.dumps(as_json(run), indent=2))
    except BaseException:
        out.print(f"Not finished. Its servers' log: {run.directory / 'servers.log'}", soft_wrap=True)
        raise
    if run.verdict.holds:
        shutil.rmtree(run.directory, ignore_errors=True)
    raise SystemExit(0 if run.verdict.holds else 1)


async def _interruptible(run: Run, out: Console) -> None:
    """Ends in order on SIGTERM as on Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    platform = throw_away_platform(run.directory)
    try:
        with out.status("starting a platform") as status:
            await platform.start()
            await _run(run, platform, lambda words: status.update(words))
    finally:
        await platform.stop()


async def _run(run: Run, platform: Platform, told: Callable[[str], None]) -> None:
    settings, plan = platform.settings, run.plan
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    timeout = httpx.Timeout(ANSWER_SECONDS)
    async with httpx.AsyncClient(base_url=settings.public_url, limits=limits, timeout=timeout, trust_env=False) as http:
        crowd = Crowd(plan, http, await _stock_the_shop(settings.public_url, plan))
        listeners, listening = [], []
        for _ in range(LISTENERS):
            person = await crowd.person()
            listeners.append(ChaosListener(settings.public_url, person))
            listening.append(asyncio.create_task(listeners[-1].run()))
        for listener in listeners:
            crowd.welcome(listener.person)
        saboteur = Saboteur(platform, lambda: crowd.busy)
        run.stories, run.tally, run.listeners, run.struck = crowd.stories, crowd.tally, listeners, saboteur.struck

        def hit(struck: Struck) -> None:
            told(
                f"{struck.at:5.0f} of {plan.seconds:.0f} s, {len(crowd.stories)} orders wished for; {struck.blow.says}"
            )

        try:
            await asyncio.gather(crowd.run(), saboteur.run(plan.blows, hit))
        finally:
            saboteur.undo()
        down = await until_ready(platform, http)
        if not down:
            await saboteur.disarm()
        run.verdict = await judge(settings, crowd.stories, crowd.tally, listeners, told)
        run.verdict.breaches[:0] = down
        run.restarts = {name: one.restarts for name, one in platform.programs.items()}
        for task in listening:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _stock_the_shop(url: str, plan: Plan) -> list[int]:
    """Products of the run's own, with the stock of the plan."""
    products = []
    async with ApiClient(url) as admin:
        await admin.login("admin@mercato.test", DEMO_PASSWORD)
        for number, on_hand in enumerate(plan.stock):
            body = {
                "sku": f"CHAOS-{number:02}",
                "name": f"Chaos lamp {number}",
                "description": "It flickers.",
                "category": "books",
                "price": {"amount": 1000 + 100 * number, "currency": "EUR"},
            }
            product = (await admin.get_json("POST", "/api/products", json=body))["id"]
            await admin.get_json("PUT", f"/api/products/{product}/stock", json={"onHand": on_hand})
            products.append(product)
    return products
