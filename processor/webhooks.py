"""Delivery of events to webhook endpoints: signed, at least once, not in order, again until somebody takes them.

A delivery is a row with the time of its next attempt. Whoever takes it moves that time ahead before it sends, by what
the next attempt would wait: a process that dies in between loses nothing, and two processes do not send the same.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from processor import endpoints
from processor.auth import account_of
from processor.context import working
from processor.database import UNREACHABLE, Pool
from processor.events import EVERY_ACCOUNT
from processor.faults import Faults
from processor.settings import Settings

BATCH = 64
AT_ONCE = 16
POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
GIVE_UP_AFTER = "3 days"
log = logging.getLogger("processor")

# The pause doubles with each attempt; the jitter keeps those that failed together apart.
_CLAIM = f"""
    WITH due AS (
        SELECT id FROM processor.delivery WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT {BATCH}
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE processor.delivery d SET attempts = d.attempts + 1, due_at = clock_timestamp() + make_interval(secs =>
            least({LONGEST_PAUSE}, {FIRST_PAUSE} * 2 ^ least(d.attempts, 20)) * (0.8 + 0.4 * random()))
        FROM due WHERE d.id = due.id RETURNING d.*
    )
    SELECT c.id, c.attempts, e.document, e.account, w.url, w.secret
    FROM claimed c JOIN processor.event e ON e.id = c.event JOIN processor.webhook_endpoint w ON w.id = c.endpoint
"""
_PRUNE = (
    f"DELETE FROM processor.delivery WHERE created_at < now() - interval '{GIVE_UP_AFTER}'",
    "DELETE FROM processor.event WHERE at < now() - interval '30 days'",
    """DELETE FROM processor.delivery d
       WHERE NOT EXISTS (SELECT FROM processor.webhook_endpoint w WHERE w.id = d.endpoint)""",
)


@dataclass(frozen=True)
class Delivery:
    """One attempt at telling one endpoint of one event."""

    id: int
    attempts: int
    document: dict[str, Any]
    account: str
    url: str
    secret: str


class Outbox:
    """Knows who listens to what, and tells them. One a process."""

    def __init__(self, pool: Pool, faults: Faults, settings: Settings) -> None:
        self.delay = settings.webhook_delay
        self._pool, self._faults, self._settings = pool, faults, settings
        self._listening: dict[str, set[str]] = {}
        self._news = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE)

    def listens(self, account: str, type_: str) -> bool:
        """Whether some endpoint of the account wants events of this type."""
        return any(
            "*" in wanted or type_ in wanted
            for wanted in (self._listening.get(account, ()), self._listening.get(EVERY_ACCOUNT, ()))
        )

    def wake(self) -> None:
        """There is something to deliver."""
        self._news.set()

    async def load(self) -> None:
        """Read the endpoints; after each change of one."""
        rows = await self._pool.fetch(
            "SELECT account, enabled_events FROM processor.webhook_endpoint WHERE status = 'enabled'"
        )
        listening: dict[str, set[str]] = {}
        for row in rows:
            listening.setdefault(row["account"], set()).update(row["enabled_events"])
        self._listening = listening

    async def start(self) -> None:
        """Write the endpoint of the settings, if there is one, and read all."""
        settings = self._settings
        if settings.webhook_url:
            key = settings.webhook_account
            account = account_of(f"Bearer {key}") if key else EVERY_ACCOUNT
            async with working(self._pool, account, "") as context:
                types = [type_.strip() for type_ in settings.webhook_events.split(",") if type_.strip()]
                document = endpoints.configured(account, context.now, settings.webhook_url, types or ["*"])
                endpoints.insert(context, document, settings.webhook_secret)
                await context.flush()
        await self.load()

    async def deliver_forever(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as http:
            while True:
                busy = False
                try:
                    busy = bool(self._listening) and await self._deliver(http)
                except UNREACHABLE:
                    log.warning("webhooks wait for the database")
                if not busy:
                    await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), POLL_SECONDS)
            await asyncio.sleep(self.delay)  # no event is due before
        self._news.clear()

    async def _deliver(self, http: aiohttp.ClientSession) -> bool:
        """One batch; whether there was anything."""
        claimed = [Delivery(**dict(row)) for row in await self._pool.fetch(_CLAIM)]
        if not claimed:
            return False
        done = await asyncio.gather(*(self._attempt(http, delivery) for delivery in claimed))
        delivered = [delivery.id for delivery, taken in zip(claimed, done, strict=True) if taken]
        if delivered:
            await self._pool.execute("DELETE FROM processor.delivery WHERE id = ANY($1::bigint[])", delivered)
        return True

    async def _attempt(self, http: aiohttp.ClientSession, delivery: Delivery) -> bool:
        """Whether this delivery is done with."""
        secret = delivery.secret
        fault = None
        if delivery.attempts == 1:
            metadata = delivery.document["data"]["object"].get("metadata") or {}
            fault = self._faults.take("webhook", "webhook", delivery.account, metadata)
        if fault and fault.mode == "webhook_lost":
            return True
        if fault and fault.mode == "webhook_late":
            await self._pool.execute(
                "UPDATE processor.delivery SET due_at = clock_timestamp() + make_interval(secs => $2) WHERE id = $1",
                delivery.id,
                fault.seconds,
            )
            return False
        if fault and fault.mode == "webhook_bad_signature":
            secret += "_wrong"
        if fault and fault.mode == "webhook_duplicate":
            await self._send(http, delivery, secret, time.time() - random.randrange(1, 60))
        return await self._send(http, delivery, secret, time.time())

    async def _send(self, http: aiohttp.ClientSession, delivery: Delivery, secret: str, at: float) -> bool:
        body = json.dumps(delivery.document)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, secret, int(at)),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            async with (
                self._places,
                http.post(delivery.url, data=body.encode(), headers=headers, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status < 300:
                    return True
                log.info("%s was answered %s", delivery.document["id"], answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("%s could not be delivered: %r", delivery.document["id"], error)
        return False


def signature(body: str, secret: str, at: int) -> str:
    """Stripe's header: HMAC-SHA256 of `{time}.{body}`."""
    digest = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


async def prune(pool: Pool) -> None:
    """Give up what nobody took in three days; forget events of a month ago."""
    for statement in _PRUNE:
        await pool.execute(statement)
