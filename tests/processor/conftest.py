"""An account of its own for each test: tests do not see each other's intents, keys or faults."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
import stripe


@dataclass(frozen=True)
class Account:
    """A fresh account at the running processor: both kinds of official client, and plain HTTP."""

    url: str
    key: str

    def client(self, retries: int = 0) -> stripe.StripeClient:
        return stripe.StripeClient(self.key, base_addresses={"api": self.url}, max_network_retries=retries)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@pytest.fixture
def account(processor_url: str) -> Iterator[Account]:
    account = Account(processor_url, f"sk_test_{uuid4().hex}")
    yield account
    httpx.delete(f"{processor_url}/test/faults", headers=account.headers)


@pytest.fixture
def client(account: Account) -> stripe.StripeClient:
    return account.client()


@pytest.fixture
async def http(account: Account) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=account.url, headers=account.headers) as http:
        yield http


@pytest.fixture
def books(account: Account) -> Any:
    """`books("order")` is what the processor's books say about the order's intents."""

    def read(order_id: str | None = None) -> list[dict[str, Any]]:
        params = {"order_id": order_id} if order_id else {}
        rows: list[dict[str, Any]] = httpx.get(
            f"{account.url}/test/books", params=params, headers=account.headers
        ).json()["data"]
        return rows

    return read


@pytest.fixture
def arm(account: Account) -> Any:
    """`arm(mode="reply_lost", times=1)` arms a fault for this account only."""

    def put(**fault: Any) -> None:
        httpx.put(f"{account.url}/test/faults", json=fault, headers=account.headers).raise_for_status()

    return put
