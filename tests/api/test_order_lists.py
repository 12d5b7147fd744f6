"""What staff find, and a shopper's own list: every filter alone and together, pages that lose and repeat nothing."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from sqlalchemy.exc import IntegrityError

from api.deps import Resources
from api.main import create_app
from core.settings import Settings
from models.orders import Order
from models.types import (
    OrderStatus,
    PaymentStatus,
    Role,
    Service,
    first_uuid7,
    normalize_order_number,
    order_number,
    uuid7,
)
from services import users
from tests.api.accounts import PASSWORD, bearer, fresh_address, register, sign_in

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
START = datetime(2026, 3, 1, tzinfo=UTC)
Json = dict[str, Any]


@dataclass
class Desk:
    """A member of staff at the search, and rows put straight into the books to be found."""

    http: httpx.AsyncClient
    resources: Resources

    async def order(self, customer: UUID, at: datetime | None = None, **values: Any) -> Order:
        at = at or datetime.now(UTC)
        given_id = first_uuid7(int(at.timestamp() * 1000)).int | uuid7().int & (1 << 80) - 1
        values = {"id": UUID(int=given_id), "number": order_number(UUID(int=given_id)), "created_at": at} | values
        order = Order(customer_id=customer, currency="EUR", checkout={}, **values)
        async with self.resources.sessions[Service.ORDERS].begin() as session:
            session.add(order)
        return order

    async def find(self, **filters: Any) -> list[str]:
        """Numbers in the order they come, all pages."""
        return [order["number"] for order in await self.pages(**filters)]

    async def pages(self, **filters: Any) -> list[Json]:
        found: list[Json] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.page(**filters, **cursor)
            found += page["items"]
            if not page["nextCursor"]:
                return found
            cursor = {"cursor": page["nextCursor"]}

    async def page(self, **filters: Any) -> Json:
        answer = await self.http.get("/api/orders", params=filters)
        assert answer.status_code == 200, answer.text
        page: Json = answer.json()
        return page


@pytest.fixture(scope="module")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings, [Service.USERS, Service.ORDERS])
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="module")
async def guest(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as client:
        yield client


@pytest.fixture(scope="module")
async def desk(app: FastAPI, guest: httpx.AsyncClient) -> AsyncIterator[Desk]:
    resources: Resources = app.state.resources
    email = fresh_address()
    async with resources.sessions[Service.USERS].begin() as session:
        await users.ensure_user(session, email=email, password=PASSWORD, full_name="Sasha", role=Role.SUPPORT)
    headers = bearer(await sign_in(guest, email))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test", headers=headers) as client:
        yield Desk(client, resources)


def digits(count: int) -> str:
    return "".join(random.choices(CROCKFORD, k=count))


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(f"{message} {message.record}"), level=0, format="{message}")
    yield lines
    logger.remove(sink)


# --- numbers -------------------------------------------------------------------------------------------------------


async def test_a_number_is_found_however_it_is_typed(desk: Desk) -> None:
    rest = digits(5)
    number = f"{digits(2)}01A-{rest}"
    await desk.order(uuid4(), number=number)
    a, b = number[:2], number[2:]
    assert b.startswith("01A-")
    ways = [
        number,
        number.lower(),
        f"#{number}",
        f"  # {number.lower()} ",
        f"{a}01A{rest}",
        f"{a} 01A {rest}",
        f"{a}oia\u2013{rest}",
        f"{a}OLA\u2011{rest.lower()}",
        f"{a}o1a_{rest}",
    ]
    for typed in ways:
        assert await desk.find(number=typed) == [number], typed


async def test_a_number_is_found_by_its_beginning(desk: Desk) -> None:
    beginning, customer = digits(4), uuid4()
    first = await desk.order(customer, number=f"{beginning}0-00000")
    second = await desk.order(customer, number=f"{beginning}Z-ZZZZZ")
    await desk.order(customer, number=f"{beginning[:3]}{'1' if beginning[3] != '1' else '2'}Z-ZZZZZ")
    assert await desk.find(number=beginning.lower()) == [second.number, first.number]
    assert await desk.find(number=f"{beginning}Z-ZZ") == [second.number]
    assert await desk.find(number=f"{beginning}-Z") == [second.number]
    assert await desk.find(number=f"{beginning}1") == []


@pytest.mark.parametrize(
    "typed",
    [
        "abc",
        "#",
        "-",
        " ",
        "%%%%",
        "____",
        "U0000-00000",
        "00000-000000",
        "T9Q0N~",
        "' OR 1=1",
        "x\x00yz0",
        "日本語です",
    ],
)
async def test_what_can_be_no_number_finds_nothing(desk: Desk, typed: str) -> None:
    assert await desk.page(number=typed) == {"items": [], "nextCursor": None}


@given(st.uuids(version=4), st.integers(4, 10), st.data())
def test_any_way_of_writing_a_number_is_read_as_the_number(order_id: UUID, length: int, data: st.DataObject) -> None:
    number = order_number(order_id)
    typed = ""
    for digit in number.replace("-", "")[:length]:
        said = {"0": "0Oo", "1": "1IiLl"}.get(digit, digit + digit.lower())
        typed += data.draw(st.sampled_from(said)) + data.draw(st.sampled_from(["", " ", "-", "\u2014"]))
    canonical = normalize_order_number(typed)
    assert canonical
    assert number.startswith(canonical)
    assert canonical.replace("-", "") == number.replace("-", "")[:length]
    assert normalize_order_number(canonical) == canonical


async def test_numbers_that_read_alike_cannot_both_exist(desk: Desk) -> None:
    number = f"01{digits(3)}-{digits(5)}"
    await desk.order(uuid4(), number=number)
    others = [number, number.lower(), number.replace("-", ""), f"OI{number[2:]}", f"0L{number[2:]}", f"#{number}"]
    for other in others:
        assert normalize_order_number(other) == number
        with pytest.raises(IntegrityError):
            await desk.order(uuid4(), number=other)


# --- customers -----------------------------------------------------------------------------------------------------


async def test_a_customer_is_found_by_id_and_by_address(desk: Desk, guest: httpx.AsyncClient) -> None:
    email, tokens = await register(guest)
    order = await desk.order(UUID(tokens["userId"]))
    await desk.order(uuid4())
    for customer in (tokens["userId"], tokens["userId"].upper(), email, email.upper(), f" {email} "):
        assert await desk.find(customer=customer) == [order.number], customer
    assert await desk.find(customer=email, status="confirmed") == []


@pytest.mark.parametrize("customer", ["nobody@mercato.test", "not an address @ all", "@", str(uuid4())])
async def test_an_unknown_customer_has_no_orders(desk: Desk, customer: str) -> None:
    assert await desk.page(customer=customer) == {"items": [], "nextCursor": None}


async def test_the_address_searched_for_is_in_no_log(desk: Desk, guest: httpx.AsyncClient) -> None:
    email, _ = await register(guest)
    with everything_logged() as lines:
        await desk.page(customer=email)
        await desk.http.get("/api/orders", params={"customer": email, "limit": 0})
    assert any("/api/orders" in line for line in lines)
    assert not [line for line in lines if email in line or email.partition("@")[0] in line]


async def test_whose_address_it_is_is_told_to_services_only(desk: Desk, guest: httpx.AsyncClient) -> None:
    for http in (guest, desk.http):
        assert (await http.post("/internal/users/find", json={"email": "shopper@mercato.test"})).status_code == 404


# --- filters together ----------------------------------------------------------------------------------------------


async def test_every_combination_of_filters_finds_what_fits_and_nothing_else(desk: Desk) -> None:
    customer, chance = uuid4(), random.Random(7)
    orders = [
        await desk.order(
            customer,
            START + timedelta(hours=hour),
            status=chance.choice(list(OrderStatus)),
            payment_status=chance.choice(list(PaymentStatus)),
            needs_attention=chance.random() < 0.3,
        )
        for hour in range(60)
    ]
    statuses: list[list[str]] = [
        [],
        ["pending"],
        ["confirmed"],
        ["pending", "action_required"],
        ["expired", "confirmed"],
    ]
    payments: list[list[str]] = [[], ["captured"], ["none", "declined", "unknown"]]
    windows = [(None, None), (20, None), (None, 45), (20, 45)]
    for status, payment, attention, (after, before) in product(statuses, payments, [None, True, False], windows):
        filters: Json = {"customer": str(customer), "limit": 7, "status": status, "paymentStatus": payment}
        if attention is not None:
            filters["needsAttention"] = attention
        if after is not None:
            filters["placedAfter"] = orders[after].created_at.isoformat()
        if before is not None:
            filters["placedBefore"] = orders[before].created_at.isoformat()
        expected = [
            order.number
            for order in reversed(orders[after or 0 : len(orders) if before is None else before])
            if (not status or order.status in status)
            and (not payment or order.payment_status in payment)
            and attention in (None, order.needs_attention)
        ]
        assert await desk.find(**filters) == expected, filters


async def test_without_a_customer_too(desk: Desk) -> None:
    at = START - timedelta(days=random.randrange(1000, 9000), seconds=random.randrange(86400))
    window = {"placedAfter": at.isoformat(), "placedBefore": (at + timedelta(minutes=1)).isoformat()}
    declined = await desk.order(uuid4(), at, status="action_required", payment_status="declined")
    stuck = await desk.order(
        uuid4(),
        at + timedelta(seconds=1),
        status="confirmed",
        payment_status="authorized",
        needs_attention=True,
        attention={"step": "capture", "cause": "the processor is down"},
    )
    done = await desk.order(uuid4(), at + timedelta(seconds=2), status="confirmed", payment_status="captured")
    for filters, expected in (
        ({}, [done, stuck, declined]),
        ({"status": "confirmed"}, [done, stuck]),
        ({"status": ["action_required", "confirmed"], "paymentStatus": ["declined", "authorized"]}, [stuck, declined]),
        ({"needsAttention": True}, [stuck]),
        ({"needsAttention": False, "status": "confirmed"}, [done]),
        ({"paymentStatus": "captured", "number": done.number[:6].lower()}, [done]),
    ):
        assert await desk.find(**window, **filters) == [order.number for order in expected], filters
    (shown,) = await desk.pages(**window, needsAttention=True)
    assert shown["attention"] == {"step": "capture", "cause": "the processor is down"}


async def test_times_may_be_written_in_any_zone_or_none(desk: Desk) -> None:
    customer = uuid4()
    order = await desk.order(customer, START)
    for then in (
        "2026-03-01",
        "2026-03-01T00:00Z",
        "2026-03-01T00:00:00",
        "2026-03-01T02:00:00+02:00",
        "20260301T000000Z",
    ):
        assert await desk.find(customer=str(customer), placedAfter=then) == [order.number], then
        assert await desk.find(customer=str(customer), placedBefore=then) == [], then
    for then in ("0001-01-01", "9999-12-31T23:59:59Z"):
        assert len(await desk.find(customer=str(customer), placedAfter=then)) == (then < "2026")
        assert len(await desk.find(customer=str(customer), placedBefore=then)) == (then > "2026")


# --- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [{}, {"status": ["pending", "confirmed"]}, {"needsAttention": True}], ids=str)
async def test_every_order_is_seen_once_while_others_arrive(desk: Desk, filters: Json) -> None:
    customer = uuid4()
    there = [await desk.order(customer, needs_attention=True) for _ in range(20)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await desk.page(customer=str(customer), limit=3, **filters, **cursor)
        seen += [order["number"] for order in page["items"]]
        await desk.order(customer, needs_attention=True)
        if not page["nextCursor"]:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert sorted(seen) == sorted(order.number for order in there)


async def test_a_shoppers_history_pages_the_same_way_and_holds_nobody_elses(
    desk: Desk, guest: httpx.AsyncClient
) -> None:
    _, tokens = await register(guest)
    there = [await desk.order(UUID(tokens["userId"]), START + timedelta(seconds=n)) for n in range(5)]
    await desk.order(uuid4(), START)
    seen: list[str] = []
    cursor: Json = {}
    while cursor is not None:
        params = {"limit": 2, **cursor}
        page = (await guest.get("/api/orders/history", params=params, headers=bearer(tokens))).json()
        seen += [order["number"] for order in page["items"]]
        cursor = {"cursor": page["nextCursor"]} if page["nextCursor"] else None
    assert seen == [order.number for order in reversed(there)]


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "status=lost",
        "status=pending&status=lost",
        "paymentStatus=lost",
        "needsAttention=perhaps",
        "customer=sue",
        "placedAfter=yesterday",
        "placedAfter=1751328000",
        "placedBefore=2026-13-01",
        "placedBefore=0001-01-01T00:00%2B14:00",
        "cursor=x",
        "limit=0",
        "limit=101",
    ],
)
async def test_what_makes_no_sense_is_refused(desk: Desk, query: str) -> None:
    answer = await desk.http.get(f"/api/orders?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "validation_error"


async def test_the_search_is_for_staff(guest: httpx.AsyncClient) -> None:
    _, tokens = await register(guest)
    assert (await guest.get("/api/orders")).status_code == 401
    for query in ("", "?status=lost", "?number=T9Q0N-V2WDC", f"?customer={tokens['userId']}"):
        refused = await guest.get(f"/api/orders{query}", headers=bearer(tokens))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
