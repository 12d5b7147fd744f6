"""Many shoppers with full carts, who all buy through HTTP."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import httpx

from core.db import make_engine, make_sessions
from core.settings import Settings
from models.types import Role, Service
from services import users

PASSWORD = "mercato-bench-pass"
LINES = 2  # products in a cart
RESTOCK = 1_000_000


@dataclass
class Shopper:
    user_id: UUID
    email: str
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Round:
    """What came of one round: seconds from the first order to the last answer, and each order's own."""

    seconds: float = 0
    latencies: list[float] = field(default_factory=list)  # seconds, of confirmed orders
    orders: list[str] = field(default_factory=list)  # ids of confirmed orders
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Confirmed orders a second."""
        return len(self.orders) / self.seconds

    def note(self, answer: httpx.Response, began: float) -> None:
        """What came of an order that was sent off at `began` (time.perf_counter)."""
        if answer.status_code == 201:
            self.latencies.append(time.perf_counter() - began)
            self.orders.append(answer.json()["id"])
        else:
            self.failures.append(f"{answer.status_code} {answer.text[:200]}")


async def sign_up(settings: Settings, number: int) -> list[Shopper]:
    """`number` shoppers, signed in."""
    engine = make_engine(settings.service_database_url(Service.USERS), application="bench", pool_size=2)
    sessions = make_sessions(engine)
    shoppers = []
    for nth in range(number):
        email = f"bench-{nth}@mercato.test"
        async with sessions.begin() as session:
            user_id = await users.ensure_user(
                session, email=email, password=PASSWORD, full_name="Bench Shopper", role=Role.SHOPPER
            )
            shoppers.append(Shopper(user_id, email))
    await engine.dispose()
    async with httpx.AsyncClient(base_url=settings.public_url, timeout=30) as http:
        for shopper in shoppers:
            answer = await http.post("/api/auth/login", json={"email": shopper.email, "password": PASSWORD})
            shopper.token = answer.raise_for_status().json()["accessToken"]
    return shoppers


async def stock_up(settings: Settings, products: int) -> list[int]:
    """Enough of the first `products` products for any run; their ids."""
    async with httpx.AsyncClient(base_url=settings.public_url, timeout=30) as http:
        credentials = {"email": "admin@mercato.test", "password": "mercato-demo-pass"}
        login = await http.post("/api/auth/login", json=credentials)
        headers = {"Authorization": f"Bearer {login.raise_for_status().json()['accessToken']}"}
        ids: list[int] = []
        for page in itertools.count(1):
            listed = await http.get("/api/products", params={"page": page, "pageSize": 100, "sort": "newest"})
            items = listed.raise_for_status().json()["items"]
            ids += [item["id"] for item in items]
            if len(ids) >= products or not items:
                break
        for product in ids[:products]:
            put = await http.put(f"/api/products/{product}/stock", json={"onHand": RESTOCK}, headers=headers)
            put.raise_for_status()
    return ids[:products]


async def fill_carts(base_url: str, shoppers: Sequence[Shopper], products: Sequence[int], seed: int) -> None:
    """Two random products in each cart; not part of what is measured."""
    dice = random.Random(seed)
    chosen = [dice.sample(products, min(LINES, len(products))) for _ in shoppers]
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as http:

        async def fill(shopper: Shopper, wanted: Sequence[int]) -> None:
            for product in wanted:
                body = {"productId": product, "quantity": 1}
                (await http.post("/api/cart/add", json=body, headers=shopper.headers)).raise_for_status()

        work = zip(shoppers, chosen, strict=True)
        await side_by_side(8, (fill(shopper, wanted) for shopper, wanted in work))


async def buy(base_urls: Sequence[str], shoppers: Sequence[Shopper], at_once: int) -> Round:
    """Every shopper places one order, `at_once` of them at a time, and waits for its outcome."""
    result = Round()
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=at_once)) as http:

        async def place(nth: int, shopper: Shopper) -> None:
            headers = {**shopper.headers, "Idempotency-Key": uuid4().hex, "Prefer": "wait=10"}
            url = f"{base_urls[nth % len(base_urls)]}/api/orders/place"
            began = time.perf_counter()
            answer = await http.post(url, json={"paymentMethodId": "pm_card_visa"}, headers=headers)
            result.note(answer, began)

        began = time.perf_counter()
        await side_by_side(at_once, (place(nth, shopper) for nth, shopper in enumerate(shoppers)))
        result.seconds = time.perf_counter() - began
    return result


async def oversold_units(owner_url: str) -> int:
    """Units sold beyond what was ever on a shelf, by the stock ledger."""
    connection = await asyncpg.connect(owner_url)
    try:
        found: int = await connection.fetchval(
            """
            SELECT coalesce(sum(-least(left_over, 0)), 0)::bigint FROM (
                SELECT sum(on_hand_delta) AS left_over FROM catalog.stock_ledger GROUP BY product_id
            ) AS by_product
            """
        )
        return found
    finally:
        await connection.close()


async def side_by_side(at_once: int, work: Iterable[Awaitable[None]]) -> None:
    """Run all, `at_once` of them at a time."""
    waiting = iter(work)

    async def one_after_another() -> None:
        for job in waiting:
            await job

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
