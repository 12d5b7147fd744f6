"""A shopper with a browser's means only: HTTP and an event stream, against whatever address the shop has."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct-horse-battery"
VISA = "pm_card_visa"
DECLINED = "pm_card_chargeDeclined"
WAIT = 10  # seconds: the longest an answer may be waited for, so that a slow machine changes no status

Json = dict[str, Any]


async def eventually(look: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """The first true answer of `look`; the last answer is in the error when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; last answer: {answer!r}")
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Event:
    """One event of a stream; a snapshot has no `id`."""

    id: str
    type: str
    data: Any


class Stream:
    """An open event stream. Heartbeats are passed over."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self, seconds: float = 20) -> Event:
        """Raises EOFError when the server has closed the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(seconds):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.strip()
                elif "data" in fields:
                    return Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
                else:
                    fields = {}
        raise EOFError

    async def until(self, *types: str, seconds: float = 30) -> list[Event]:
        """Everything up to the first event of one of `types`, that one included."""
        found = [await self.next(seconds)]
        while found[-1].type not in types:
            found.append(await self.next(seconds))
        return found

    async def rest(self, seconds: float = 30) -> list[Event]:
        """Everything until the server closes."""
        found: list[Event] = []
        with suppress(EOFError):
            while True:
                found.append(await self.next(seconds))
        return found


@dataclass
class Shopper:
    """A signed-in person at one address of the shop."""

    http: httpx.AsyncClient
    headers: dict[str, str]
    user_id: str
    email: str = ""

    @classmethod
    async def registered(cls, http: httpx.AsyncClient) -> "Shopper":
        """A new account, signed in."""
        email = f"{uuid4().hex}@mercato.test"
        account = {"email": email, "password": PASSWORD, "fullName": "Sky Shopper"}
        made = await http.post("/api/auth/register", json=account)
        assert made.status_code == 201, made.text
        return await cls.signed_in(http, email, PASSWORD)

    @classmethod
    async def signed_in(cls, http: httpx.AsyncClient, email: str, password: str) -> "Shopper":
        login = await http.post("/api/auth/login", json={"email": email, "password": password})
        assert login.status_code == 200, login.text
        http.cookies.clear()  # several people share this client: a bearer token each, no browser's cookie
        answer = login.json()
        return cls(http, {"Authorization": f"Bearer {answer['accessToken']}"}, answer["userId"], email)

    def at(self, http: httpx.AsyncClient) -> "Shopper":
        """The same person at another address."""
        return Shopper(http, self.headers, self.user_id, self.email)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(path, headers=self.headers, params=params)

    async def add(self, product: int, quantity: int = 1) -> Json:
        """The cart after `quantity` more of `product`."""
        body = {"productId": product, "quantity": quantity}
        return _json(await self.http.post("/api/cart/add", json=body, headers=self.headers))

    async def cart(self) -> dict[int, int]:
        """Quantity by product."""
        return {line["productId"]: line["quantity"] for line in _json(await self.get("/api/cart"))["lines"]}

    async def place(
        self, card: str = VISA, *, key: str | None = None, wait: float = WAIT, **body: Any
    ) -> httpx.Response:
        return await self.post("/api/orders/place", {"paymentMethodId": card, **body}, key=key, wait=wait)

    async def pay(
        self, order_id: str, card: str = VISA, *, key: str | None = None, wait: float = WAIT
    ) -> httpx.Response:
        return await self.post(f"/api/orders/{order_id}/payment", {"paymentMethodId": card}, key=key, wait=wait)

    async def cancel(self, order_id: str, *, key: str | None = None, wait: float = WAIT) -> httpx.Response:
        return await self.post(f"/api/orders/{order_id}/cancel", {"reason": "changed my mind"}, key=key, wait=wait)

    async def post(self, path: str, body: Any, *, key: str | None = None, wait: float = WAIT) -> httpx.Response:
        """With an Idempotency-Key: a new one unless `key` is given."""
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex, "Prefer": f"wait={wait:g}"}
        return await self.http.post(path, json=body, headers=headers)

    async def insist(self, send: Callable[[], Awaitable[httpx.Response]], seconds: float = 60) -> httpx.Response:
        """As a good client: again, with the same key and when told to, while the answer is 503 or that the first
        request is still under way, or while nobody answers at all."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    answer = await send()
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
                    continue
                under_way = answer.status_code == 409 and answer.json()["code"] == "idempotency_in_progress"
                if answer.status_code != 503 and not under_way:
                    return answer
                await asyncio.sleep(int(answer.headers["retry-after"]))

    async def cart_is_free(self) -> None:
        """Wait until an order that was sold has cleared the cart, so that the next one may take it."""

        async def look() -> bool:
            return not await self.cart()

        await eventually(look)

    async def order(self, order_id: str) -> Json:
        return _json(await self.get(f"/api/orders/{order_id}"))

    async def until(self, order_id: str, seconds: float = 40, **wanted: Any) -> Json:
        """The order, once it has all of `wanted`."""

        async def look() -> Json | None:
            order = await self.order(order_id)
            return order if all(order[name] == value for name, value in wanted.items()) else None

        order: Json = await eventually(look, seconds)
        return order

    @asynccontextmanager
    async def listen(self, path: str = "/api/orders/events", last: str | None = None) -> AsyncIterator[Stream]:
        """An event stream, after the event with the id `last` if given. Raises AssertionError when it is refused."""
        position = {} if last is None else {"Last-Event-ID": last}
        async with self.http.stream("GET", path, headers=self.headers | position) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield Stream(response)


def problem(response: httpx.Response, status: int, code: str) -> Json:
    """The problem document of a refusal, which has to be this one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json"), response.text
    body: Json = response.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert len(body["traceId"]) == 32, body
    assert "Traceback" not in response.text
    return body


def _json(response: httpx.Response) -> Json:
    assert response.is_success, f"{response.status_code} {response.text}"
    body: Json = response.json()
    return body
