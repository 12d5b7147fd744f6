"""The shoppers of a chaos run: good clients, who repeat with the same key and write down every answer they get."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from cli.chaos_plan import Plan, Wish

PASSWORD = "correct-horse-battery"
VISA = "pm_card_visa"
CARDS = {"visa": VISA, "declined": "pm_card_chargeDeclined", "authentication": "pm_card_authenticationRequired"}
PATIENCE = 60.0  # seconds that a client repeats one request
LOOKS = 30.0  # seconds that a shopper looks after an order; the end of the run looks after it anyway
BETWEEN_LOOKS = 0.4
ANSWER_SECONDS = 12.0
LONGEST_RETRY_PAUSE = 2.0
ENDED = ("rejected", "expired", "cancelled")

Send = Callable[[], Awaitable[httpx.Response]]
Json = dict[str, Any]


@dataclass
class Story:
    """What a shopper did about one wish, and what was answered. No answer means unknown, never failed."""

    wish: Wish
    key: str
    order_ids: set[str] = field(default_factory=set)
    accepted: bool = False  # 201 or 202
    told: set[str] = field(default_factory=set)  # every status that any answer gave
    asked_to_cancel: bool = False
    placed_seconds: float | None = None  # until the first request that was answered for good
    settled_seconds: float | None = None
    unknown: bool = False


@dataclass
class Tally:
    """What clients met."""

    repeats: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)  # answers that must never be given
    longest_outage: float = 0  # seconds from a request's first failure to its answer

    def count(self, answer: str) -> None:
        self.answers[answer] = self.answers.get(answer, 0) + 1


class Person:
    """One account, one order at a time."""

    def __init__(self, http: httpx.AsyncClient, tally: Tally) -> None:
        self._http = http
        self._tally = tally
        self.token = ""
        self.email = f"{secrets.token_hex(8)}@mercato.test"

    async def register(self) -> None:
        account = {"email": self.email, "password": PASSWORD}
        await self.insist(
            lambda: self._http.post("/api/auth/register", json={**account, "fullName": "Kay Chaos"}), until=(201, 409)
        )
        answer = await self.insist(lambda: self._http.post("/api/auth/login", json=account), until=(200,))
        self.token = answer.json()["accessToken"]
        self._http.cookies.clear()  # several people share the client

    async def call(self, method: str, path: str, body: Any = None, key: str = "", wait: float = 1) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        if key:
            headers |= {"Idempotency-Key": key, "Prefer": f"wait={wait:g}"}
        return await self._http.request(method, path, json=body, headers=headers)

    async def insist(self, send: Send, until: tuple[int, ...] = ()) -> httpx.Response:
        """As a good client: again, when told to, until there is an answer for good (or one of `until`).

        Raises:
            TimeoutError: nobody answered in all the time.
        """
        first_failure: float | None = None
        async with asyncio.timeout(PATIENCE):
            while True:
                pause = LONGEST_RETRY_PAUSE / 4
                try:
                    answer = await send()
                except httpx.TransportError as error:
                    self._tally.count(type(error).__name__)
                else:
                    self._tally.count(str(answer.status_code))
                    if self._is_final(answer) and (not until or answer.status_code in until):
                        if first_failure is not None:
                            outage = time.monotonic() - first_failure
                            self._tally.longest_outage = max(self._tally.longest_outage, outage)
                        return answer
                    pause = min(float(answer.headers.get("Retry-After", pause)), LONGEST_RETRY_PAUSE)
                first_failure = first_failure or time.monotonic()
                self._tally.repeats += 1
                await asyncio.sleep(pause)

    def _is_final(self, answer: httpx.Response) -> bool:
        if answer.status_code < 400:
            return True
        is_problem = answer.headers.get("Content-Type", "").startswith("application/problem+json")
        if not is_problem or answer.status_code in (401, 500) or "Traceback" in answer.text:
            self._wrong(answer)
            return answer.status_code != 500
        if answer.status_code in (429, 503):
            if "Retry-After" not in answer.headers:
                self._wrong(answer)
            return False
        return bool(answer.json()["code"] != "idempotency_in_progress")

    def _wrong(self, answer: httpx.Response) -> None:
        asked = f"{answer.request.method} {answer.request.url.path}"
        self._tally.wrongs.append(f"{asked} answered {answer.status_code} {answer.text[:200]}")


class Crowd:
    """Serves the wishes of a plan, each by a person who is free then."""

    def __init__(self, plan: Plan, http: httpx.AsyncClient, products: list[int]) -> None:
        self.plan = plan
        self.tally = Tally()
        self.stories: list[Story] = []
        self.busy = 0
        self._http = http
        self._products = products
        self._free: list[Person] = []

    async def person(self) -> Person:
        """Somebody who does nothing just now; a new account if everybody is busy."""
        if self._free:
            return self._free.pop()
        person = Person(self._http, self.tally)
        await person.register()
        return person

    def welcome(self, person: Person) -> None:
        self._free.append(person)

    async def run(self) -> None:
        """Until the last wish has been looked after."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as wishes:
            for wish in self.plan.wishes:
                await asyncio.sleep(max(0.0, begun + wish.at - time.monotonic()))
                wishes.create_task(self._serve(wish))

    async def _serve(self, wish: Wish) -> None:
        story = Story(wish, secrets.token_hex(12))
        self.stories.append(story)
        self.busy += 1
        try:
            person = await self.person()
            if await Errand(person, story, self._products).run():
                self._free.append(person)
        except TimeoutError:
            story.unknown = True
        finally:
            self.busy -= 1


class Errand:
    """One person's way with one wish."""

    def __init__(self, person: Person, story: Story, products: list[int]) -> None:
        self._person = person
        self._story = story
        self._products = products

    async def run(self) -> bool:
        """Whether the order has come to its end, so that the person may have another."""
        person, story, wish = self._person, self._story, self._story.wish
        await person.insist(lambda: person.call("DELETE", "/api/cart"))
        for product, quantity in wish.lines.items():
            line = {"productId": self._products[product], "quantity": quantity}
            if (await person.insist(lambda line=line: person.call("POST", "/api/cart/add", line))).is_error:  # type: ignore[misc]
                return True  # sold out, and told so
        begun = time.monotonic()
        body = {"paymentMethodId": CARDS[wish.card]}
        requests = [self._placed(body) for _ in range(1 + wish.twice)]
        if wish.cancel_after is not None:
            requests.append(self._cancel_in(wish.cancel_after))
        await asyncio.gather(*requests)
        story.placed_seconds = time.monotonic() - begun
        if not story.order_ids:
            return True
        settled = await self._look_after()
        if settled:
            story.settled_seconds = time.monotonic() - begun
        return settled

    async def _placed(self, body: Json) -> None:
        person, story = self._person, self._story
        answer = await person.insist(lambda: person.call("POST", "/api/orders/place", body, story.key, story.wish.wait))
        self._hear(answer)
        story.accepted |= answer.status_code in (201, 202)

    async def _look_after(self) -> bool:
        """Pay, prove, cancel as wished until it has ended; False: it goes on without us."""
        wish, give_up_at, paid = self._story.wish, time.monotonic() + LOOKS, False
        while time.monotonic() < give_up_at:
            order = await self._order()
            action = (order or {}).get("actionRequired")
            if order and (order["status"] in ENDED or order["paymentStatus"] in ("captured", "refunded")):
                if wish.cancel_sold and order["status"] == "confirmed" and not self._story.asked_to_cancel:
                    await self._cancel_in(0)
                return True
            if action and action["type"] == "redirect" and wish.then != "abandon":
                await self._prove(action["url"], passed=wish.then == "complete")
            elif action and action["type"] == "payment_method" and wish.then != "abandon" and not paid:
                paid = await self._pay()
            elif action and wish.then == "abandon":
                return False
            await asyncio.sleep(BETWEEN_LOOKS)
        return False

    async def _order(self) -> Json | None:
        with suppress(httpx.TransportError):
            (order_id, *_) = self._story.order_ids
            answer = await self._person.call("GET", f"/api/orders/{order_id}")
            self._hear(answer)
            if answer.status_code == 200:
                order: Json = answer.json()
                return order
        return None

    async def _pay(self) -> bool:
        """With a good card; True: it was taken."""
        (order_id, *_), key = self._story.order_ids, f"{self._story.key}-card"
        path, body = f"/api/orders/{order_id}/payment", {"paymentMethodId": VISA}
        answer = await self._person.insist(lambda: self._person.call("POST", path, body, key))
        self._hear(answer)
        return answer.is_success

    async def _prove(self, url: str, *, passed: bool) -> None:
        """At the bank's page. It may be down, or have been answered already."""
        parts = urlsplit(url)
        secret = parse_qs(parts.query).get("client_secret", [""])[0]
        page = f"{parts.scheme}://{parts.netloc}{parts.path}/{'complete' if passed else 'fail'}"
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=5, trust_env=False) as browser:
                await browser.post(page, data={"client_secret": secret})

    async def _cancel_in(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._story.order_ids:  # nobody has told its id yet
            return
        (order_id, *_), key = self._story.order_ids, f"{self._story.key}-cancel"
        self._story.asked_to_cancel = True
        path = f"/api/orders/{order_id}/cancel"
        self._hear(await self._person.insist(lambda: self._person.call("POST", path, {"reason": "chaos"}, key)))

    def _hear(self, answer: httpx.Response) -> None:
        with suppress(ValueError):
            body = answer.json()
            if isinstance(body, dict):
                self._story.order_ids |= {body["orderId"]} if body.get("orderId") else set()
                if answer.is_success and "status" in body:
                    self._story.told.add(body["status"])
