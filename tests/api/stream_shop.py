"""A running orders service and a listener to its event streams, for tests."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import uvicorn
from redis.exceptions import RedisError

from api.deps import Resources
from api.main import KEEP_ALIVE_SECONDS, create_app
from api.tokens import make_signer
from core.events import publish_hint
from core.settings import Settings
from models.messages import CheckoutInput
from models.types import EventType, Money, Role, Service, uuid7
from services import orders, revocations
from tests import order_log


@dataclass
class Message:
    """One event as a browser would see it; a comment has only `comment`."""

    id: str = ""
    event: str = ""
    data: Any = None
    comment: str = ""
    retry: int = 0


class Listener:
    """An open stream. `next()` passes over heartbeats."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self, seconds: float = 5) -> Message:
        async with asyncio.timeout(seconds):
            while (message := await self.next_of_any_kind()).comment:
                pass
        return message

    async def next_of_any_kind(self) -> Message:
        """Raises EOFError when the server has closed the stream."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return Message(
                    id=fields.get("id", ""),
                    event=fields.get("event", ""),
                    data=json.loads(fields["data"]) if "data" in fields else None,
                    comment=fields.get("", ""),
                    retry=int(fields.get("retry", 0)),
                )
            name, _, value = line.partition(":")
            assert name not in fields, f"{name} twice in one event"
            fields[name] = value.strip()
        raise EOFError

    async def rest(self, seconds: float = 5) -> list[Message]:
        """Everything until the server closes."""
        found: list[Message] = []
        with suppress(EOFError):
            while True:
                found.append(await self.next(seconds))
        return found


@dataclass
class Shop:
    """A running orders service."""

    url: str
    settings: Settings
    resources: Resources
    http: httpx.AsyncClient = field(repr=False)

    def headers(self, user: UUID, session: UUID | None = None, role: Role = Role.SHOPPER) -> dict[str, str]:
        return {"Authorization": f"Bearer {make_signer(self.settings).sign(user, session or uuid4(), role)}"}

    @asynccontextmanager
    async def listen(
        self, path: str, headers: dict[str, str], last: str | None = None, **params: str
    ) -> AsyncIterator[Listener]:
        position = {} if last is None else {"Last-Event-ID": last}
        async with self.http.stream("GET", path, headers=headers | position, params=params) as response:
            assert response.status_code == 200, await response.aread()
            yield Listener(response)

    async def place(self, customer: UUID) -> UUID:
        order_id = uuid7()
        checkout = CheckoutInput(order_id=order_id, customer_id=customer, payment_method_id="pm_card_visa")
        async with self.resources.sessions[Service.ORDERS].begin() as session:
            await order_log.place(session, checkout)
        await publish_hint(self.resources.redis, customer)
        return order_id

    async def change(self, customer: UUID, transition: Callable[..., Awaitable[Any]], *values: Any) -> None:
        async with self.resources.sessions[Service.ORDERS].begin() as session:
            await transition(session, *values)
        await publish_hint(self.resources.redis, customer)

    async def reserve(self, customer: UUID, order_id: UUID) -> None:
        await self.change(customer, orders.record_reserved, order_id, datetime.now(UTC))

    async def confirm(self, customer: UUID, order_id: UUID) -> None:
        total = Money(amount=100)
        await self.change(customer, orders.record_authorized, order_id, total)
        await self.change(customer, orders.confirm, order_id)
        await self.change(customer, orders.record_captured, order_id, total)

    async def remark(self, customer: UUID, order_id: UUID, key: str, note: str) -> None:
        """An event of no consequence, as large or as strange as wanted."""
        data = {"orderId": str(order_id), "status": "pending", "paymentStatus": "none", "note": note}
        async with self.resources.sessions[Service.ORDERS].begin() as session:
            await order_log.append(
                session,
                customer_id=customer,
                order_id=order_id,
                event_key=key,
                type=EventType.ORDER_NEEDS_ATTENTION,
                data=data,
            )
        await publish_hint(self.resources.redis, customer)

    async def has_streams(self, count: int) -> None:
        """Wait until so many streams are open in this process."""
        line = f"mercato_sse_streams {float(count)}"
        async with asyncio.timeout(10):
            while line not in (await self.http.get("/metrics")).text.splitlines():  # noqa: ASYNC110 (nobody tells us)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_shop(settings: Settings) -> AsyncIterator[Shop]:
    app = create_app(settings, (Service.ORDERS,))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            app, log_config=None, lifespan="on", timeout_graceful_shutdown=2, timeout_keep_alive=KEEP_ALIVE_SECONDS
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with httpx.AsyncClient(base_url=url, timeout=10, limits=httpx.Limits(max_connections=None)) as http:
                # the listening socket exists: the first request waits for the server, not the other way round
                assert (await http.get("/health/live")).status_code == 200
                resources: Resources = app.state.resources
                with suppress(RedisError):
                    await resources.redis.set(revocations.READY, 1, ex=600)
                yield Shop(url, settings, resources, http)
                await resources.events.stop()
        finally:
            server.should_exit = True
            await running
