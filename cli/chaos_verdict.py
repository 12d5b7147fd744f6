"""What came of a chaos run: is everything back, has all ended, do the invariants hold, was no client lied to."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from cli.breaks import compare_everything
from cli.chaos_listeners import ChaosListener
from cli.chaos_shoppers import ENDED, Story, Tally
from cli.check import check_invariants
from cli.platform import Platform
from cli.stuck import open_breaks, open_orders, open_workflows, stuck_report
from core.settings import Settings
from models.errors import Unavailable

READY_SECONDS = 90.0
HEALING_SECONDS = 180.0
RECONCILING_SECONDS = 60.0
STREAM_SECONDS = 20.0
BETWEEN_LOOKS = 0.5
CONFIRMED = "confirmed"

ORDERS = """
    SELECT o.id::text, o.status, o.payment_status, u.email
    FROM orders.orders o JOIN users.users u ON u.id = o.customer_id
"""
LAST_SEQ = """
    SELECT u.email, c.last_seq FROM orders.customer_counters c JOIN users.users u ON u.id = c.customer_id
"""


@dataclass
class Verdict:
    """`breaches` is what must never be; `stuck` what did not come to an end by itself; `breaks` what reconciliation
    has found and could not mend."""

    breaches: list[str] = field(default_factory=list)
    stuck: list[dict[str, Any]] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    endings: dict[str, int] = field(default_factory=dict)
    healed_seconds: float | None = None  # after the last fault; None: not in time

    @property
    def holds(self) -> bool:
        return not (self.breaches or self.stuck or self.breaks)


async def until_ready(platform: Platform, http: httpx.AsyncClient) -> list[str]:
    """Wait until every program is back by itself; a sentence for each that is not."""
    give_up_at = time.monotonic() + READY_SECONDS
    while True:
        down = [name for name, one in platform.programs.items() if one.state != "ready"]
        if not down:
            try:
                answer = await http.get("/health/ready")
                if answer.status_code == 200 and answer.json()["status"] == "ready":
                    return []
                down = [f"the API ({answer.text[:200]})"]
            except (httpx.HTTPError, ValueError, KeyError) as error:
                down = [f"the API ({type(error).__name__})"]
        if time.monotonic() > give_up_at:
            return [f"{name} did not come back within {READY_SECONDS:g} s" for name in down]
        await asyncio.sleep(BETWEEN_LOOKS)


async def judge(
    settings: Settings,
    stories: Sequence[Story],
    tally: Tally,
    listeners: Sequence[ChaosListener],
    told: Callable[[str], None],
) -> Verdict:
    """Everything is up and no fault is armed: wait until all has ended, then look."""
    verdict = Verdict()
    begun = time.monotonic()
    left = await _until_ended(settings, told)
    if left:
        verdict.stuck = await stuck_report(settings, left)
    else:
        verdict.healed_seconds = time.monotonic() - begun
    told("reconciling")
    await _reconciled(settings)
    verdict.breaks = await open_breaks(settings.database_url)
    told("checking the invariants")
    report = await check_invariants(settings)
    verdict.breaches += [f"{breach.invariant} {breach.subject}: {breach.detail}" for breach in report.breaches]
    verdict.breaches += [f"{source} could not be read: {why}" for source, why in report.unreadable.items()]
    verdict.breaches += tally.wrongs
    connection = await asyncpg.connect(settings.database_url, timeout=10)
    try:
        orders = await connection.fetch(ORDERS)
        newest = dict(await connection.fetch(LAST_SEQ))
    finally:
        await connection.close()
    for order in orders:
        ending = f"{order['status']}, {order['payment_status']}"
        verdict.endings[ending] = verdict.endings.get(ending, 0) + 1
    verdict.breaches += lies(stories, {order["id"]: order["status"] for order in orders})
    verdict.breaches += await _unheard(listeners, newest)
    return verdict


def lies(stories: Sequence[Story], orders: dict[str, str]) -> list[str]:
    """What clients were told that is not so. `orders` is every order's status by its id."""
    found = []
    if len(orders) > len(stories):
        found.append(f"{len(orders)} orders were written for {len(stories)} wishes")
    for story in stories:
        if len(story.order_ids) > 1:
            found.append(f"one key, several orders: {', '.join(sorted(story.order_ids))}")
        for order_id in story.order_ids:
            status = orders.get(order_id, "")
            if not status:
                found.append(f"{order_id} was answered and does not exist")
            elif story.accepted and status not in (*ENDED, CONFIRMED):
                found.append(f"{order_id} was accepted (I4) and is {status}")
            elif CONFIRMED in story.told and status in ENDED and not (story.asked_to_cancel and status == "cancelled"):
                found.append(f"{order_id} was answered confirmed and is {status}, though nobody cancelled it")
    return found


async def _until_ended(settings: Settings, told: Callable[[str], None]) -> list[asyncpg.Record]:
    """The orders that have not ended in time; workflows that outlive their orders count as theirs."""
    give_up_at = time.monotonic() + HEALING_SECONDS
    while True:
        left = await open_orders(settings.database_url)
        try:
            running = await open_workflows(settings)
        except (Unavailable, RPCError):
            running = ["?"]
        if not left and not running:
            return []
        told(f"healing: {len(left)} orders and {len(running)} workflows are open")
        if time.monotonic() > give_up_at:
            return left or await _of_workflows(settings, running)
        await asyncio.sleep(BETWEEN_LOOKS)


async def _reconciled(settings: Settings) -> None:
    """Let reconciliation give back what the processor charged beside us."""
    give_up_at = time.monotonic() + RECONCILING_SECONDS
    while time.monotonic() < give_up_at:
        with suppress(Unavailable, RPCError, WorkflowFailureError):
            if (await compare_everything(settings)).breaks_open == 0:
                return
        await asyncio.sleep(BETWEEN_LOOKS)


async def _of_workflows(settings: Settings, workflows: Sequence[str]) -> list[asyncpg.Record]:
    ids = [workflow.partition("-")[2] for workflow in workflows]
    return await open_orders(settings.database_url, ids)


async def _unheard(listeners: Sequence[ChaosListener], newest: dict[str, int]) -> list[str]:
    """Gaps, and events that were written and never came, though the stream has been open since."""
    give_up_at = time.monotonic() + STREAM_SECONDS
    while True:
        behind = [one for one in listeners if one.last < newest.get(one.email, 0)]
        if not behind or time.monotonic() > give_up_at:
            break
        await asyncio.sleep(BETWEEN_LOOKS)
    late = [f"{one.email} heard events up to {one.last} of {newest[one.email]}" for one in behind]
    return [gap for one in listeners for gap in one.gaps] + late
