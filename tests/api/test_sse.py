"""Event streams over HTTP: the orders service behind a real server, orders moved by the real transitions."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from api import sse
from core.settings import Settings
from models.types import OrderStatus, Role
from services import orders, revocations
from tests.api.stream_shop import Shop, running_shop

STREAMS_A_USER = 3
HEARTBEAT = 0.3


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str) -> Settings:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Settings(
        environment="test",
        database_url=database_url,
        redis_url=urlsplit(redis_url)._replace(path="/9").geturl(),  # keys of its own
        signing_key=SecretStr(pem.decode()),
        stream_heartbeat_seconds=HEARTBEAT,
        streams_per_user=STREAMS_A_USER,
        rate_limits="on",
    )


@pytest.fixture(scope="module")
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with running_shop(settings) as shop:
        yield shop


async def test_one_order_is_followed_from_its_snapshot_to_its_end(shop: Shop) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    async with shop.listen(f"/api/orders/{order}/events", shop.headers(customer)) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        snapshot = await stream.next()
        assert (snapshot.event, snapshot.id) == ("snapshot", "")
        assert snapshot.data["id"] == str(order)
        assert snapshot.data["status"] == "pending"
        assert 2000 <= snapshot.retry <= 4000
        await shop.place(customer)  # another order's event is not this stream's
        await shop.confirm(customer, order)
        rest = await stream.rest()
    assert [(m.id, m.event) for m in rest] == [
        ("3", "payment.authorized"),
        ("4", "order.confirmed"),
        ("5", "payment.captured"),
    ]
    assert all(m.data["orderId"] == str(order) and m.data["type"] == m.event and m.data["at"] for m in rest)
    assert (rest[-1].data["status"], rest[-1].data["paymentStatus"]) == ("confirmed", "captured")


@pytest.mark.parametrize("end", [OrderStatus.REJECTED, OrderStatus.EXPIRED, OrderStatus.CANCELLED])
async def test_a_stream_closes_when_its_order_ends(shop: Shop, end: OrderStatus) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    async with shop.listen(f"/api/orders/{order}/events", shop.headers(customer), last="0") as stream:
        assert (await stream.next()).event == "snapshot"
        assert (await stream.next()).event == "order.placed"
        await shop.change(customer, orders.end, order, end)
        assert [m.event for m in await stream.rest()] == [f"order.{end.value}"]


async def test_a_reconnect_that_has_heard_all_of_a_finished_order_is_sent_away(shop: Shop) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    await shop.confirm(customer, order)
    path, headers = f"/api/orders/{order}/events", shop.headers(customer)
    async with shop.listen(path, headers) as stream:  # never connected before: the end is told all the same
        first, *rest = await stream.rest()
        assert (first.event, first.data["status"]) == ("snapshot", "confirmed")
        assert [(m.id, m.event) for m in rest] == [("4", "payment.captured")]
    async with shop.listen(path, headers, last="2") as stream:
        assert [m.id for m in await stream.rest()] == ["", "3", "4"]
    again = await shop.http.get(path, headers=headers | {"Last-Event-ID": "4"})
    assert (again.status_code, again.content) == (204, b"")


async def test_all_my_orders_are_one_stream_that_stays_open(shop: Shop) -> None:
    customer = uuid4()
    done, open_order = await shop.place(customer), await shop.place(customer)
    await shop.confirm(customer, done)
    async with shop.listen("/api/orders/events", shop.headers(customer)) as stream:
        snapshot = await stream.next()
        assert [order["id"] for order in snapshot.data["orders"]] == [str(open_order)]
        assert snapshot.data["lastSeq"] == 5
        await shop.confirm(customer, open_order)
        third = await shop.place(customer)
        got = [await stream.next() for _ in range(4)]
        assert [m.id for m in got] == ["6", "7", "8", "9"]
        assert got[-1].data["orderId"] == str(third)


async def test_ten_random_disconnects_give_no_gap_and_no_double(shop: Shop) -> None:
    customer, dice, total = uuid4(), random.Random(3), 60
    headers = shop.headers(customer)
    order = await shop.place(customer)

    async def write() -> None:
        for n in range(total - 1):
            await shop.remark(customer, order, f"k{n}", "")

    writer = asyncio.create_task(write())
    seen: list[int] = [0]
    connections = 0
    while seen[-1] < total:
        connections += 1
        path = dice.choice(["/api/orders/events", f"/api/orders/{order}/events"])
        async with shop.listen(path, headers, last=str(seen[-1])) as stream:
            assert (await stream.next()).event == "snapshot"
            for _ in range(min(dice.randint(1, 6), total - seen[-1])):
                seen.append(int((await stream.next()).id))
    await writer
    assert connections > 10
    assert seen == list(range(total + 1))


@pytest.mark.parametrize("position", ["abc", "-1", "999999", "1.5", "٣", "9" * 40])
async def test_an_id_that_was_never_given_out_is_answered_by_the_whole_log(shop: Shop, position: str) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    await shop.reserve(customer, order)
    for path in ("/api/orders/events", f"/api/orders/{order}/events"):
        async with shop.listen(path, shop.headers(customer), lastEventId=position) as stream:
            got = [await stream.next() for _ in range(4)]
        assert [(m.id, m.event) for m in got] == [
            ("", "snapshot"),
            ("", "resync"),
            ("1", "order.placed"),
            ("2", "order.reserved"),
        ]


async def test_the_header_goes_before_the_address(shop: Shop) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    await shop.reserve(customer, order)
    async with shop.listen("/api/orders/events", shop.headers(customer), last="1", lastEventId="0") as stream:
        assert [(await stream.next()).id for _ in range(2)] == ["", "2"]


async def test_somebody_elses_order_does_not_exist(shop: Shop) -> None:
    order = await shop.place(uuid4())
    for path in (f"/api/orders/{order}/events", f"/api/orders/{uuid4()}/events", "/api/orders/not-an-id/events"):
        answer = await shop.http.get(path, headers=shop.headers(uuid4()))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await shop.http.get(f"/api/orders/{order}/events")).status_code == 401
    assert (await shop.http.get("/api/orders/events")).status_code == 401


async def test_staff_follow_any_order(shop: Shop) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    async with shop.listen(f"/api/orders/{order}/events", shop.headers(uuid4(), role=Role.SUPPORT)) as stream:
        assert (await stream.next()).data["customerId"] == str(customer)
        await shop.reserve(customer, order)
        assert (await stream.next()).event == "order.reserved"


async def test_an_idle_stream_is_kept_alive_by_comments(shop: Shop) -> None:
    async with shop.listen("/api/orders/events", shop.headers(uuid4())) as stream:
        assert (await stream.next()).event == "snapshot"
        async with asyncio.timeout(10 * HEARTBEAT):
            assert [(await stream.next_of_any_kind()).comment for _ in range(3)] == ["ping"] * 3


async def test_the_oldest_stream_of_a_user_makes_room(shop: Shop) -> None:
    customer = uuid4()
    headers = shop.headers(customer)
    streams = [shop.listen("/api/orders/events", headers) for _ in range(STREAMS_A_USER + 1)]
    opened = []
    for stream in streams:
        opened.append(await stream.__aenter__())
        await opened[-1].next()
    assert await opened[0].rest() == []
    await shop.place(customer)
    assert [(await each.next()).id for each in opened[1:]] == ["1"] * STREAMS_A_USER
    for stream in streams:
        await stream.__aexit__(None, None, None)


async def test_without_rate_limits_a_user_has_as_many_streams_as_wanted(settings: Settings) -> None:
    customer = uuid4()
    async with running_shop(settings.model_copy(update={"rate_limits": "off"})) as shop:
        streams = [shop.listen("/api/orders/events", shop.headers(customer)) for _ in range(STREAMS_A_USER + 3)]
        opened = [await stream.__aenter__() for stream in streams]
        for each in opened:
            await each.next()
        await shop.place(customer)
        assert [(await each.next()).id for each in opened] == ["1"] * len(opened)
        for stream in streams:
            await stream.__aexit__(None, None, None)


async def test_the_streams_of_an_ended_session_close_and_others_stay(shop: Shop) -> None:
    customer, ended = uuid4(), uuid4()
    async with (
        shop.listen("/api/orders/events", shop.headers(customer, ended)) as gone,
        shop.listen("/api/orders/events", shop.headers(customer)) as kept,
    ):
        assert (await gone.next()).event == (await kept.next()).event == "snapshot"
        await revocations.announce(shop.resources.redis, [ended], 300)
        assert await gone.rest() == []
        await shop.place(customer)
        assert (await kept.next()).event == "order.placed"


async def test_nothing_in_an_event_can_forge_another(shop: Shop) -> None:
    customer = uuid4()
    order = await shop.place(customer)
    note = "x\r\n\r\nid: 99\nevent: payment.captured\rdata: {}\u2028\u0085\n\n"
    async with shop.listen("/api/orders/events", shop.headers(customer)) as stream:
        await stream.next()
        await shop.remark(customer, order, "forged", note)
        await shop.reserve(customer, order)
        forged, after = await stream.next(), await stream.next()
    assert (forged.id, forged.event, forged.data["note"]) == ("2", "order.needs_attention", note)
    assert (after.id, after.event) == ("3", "order.reserved")


async def test_a_reader_that_stops_reading_is_dropped_and_others_are_not_held_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.5)
    customer = uuid4()
    order = await shop.place(customer)
    await shop.has_streams(0)
    address = urlsplit(shop.url)
    token = shop.headers(customer)["Authorization"]
    with socket.socket() as frozen:
        frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        frozen.connect((address.hostname, address.port))
        frozen.sendall(f"GET /api/orders/events HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        async with shop.listen("/api/orders/events", shop.headers(customer)) as lively:
            await lively.next()
            await shop.has_streams(2)
            for n in range(60):
                await shop.remark(customer, order, f"k{n}", "x" * 200_000)
                assert (await lively.next(seconds=2)).id == str(n + 2)
            await shop.has_streams(1)


async def test_a_stream_without_valkey_is_late_but_right(settings: Settings) -> None:
    """Without Valkey the users service is asked about sessions; one stands in that knows them all."""
    customer = uuid4()
    async with running_shop(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as shop:
        shop.resources.users = AllSessionsStand()  # type: ignore[assignment]
        order = await shop.place(customer)
        async with shop.listen(f"/api/orders/{order}/events", shop.headers(customer), last="0") as stream:
            assert [(await stream.next()).event for _ in range(2)] == ["snapshot", "order.placed"]
            await shop.confirm(customer, order)
            assert [m.id for m in await stream.rest()] == ["2", "3", "4"]


class AllSessionsStand:
    async def session_active(self, session_id: UUID) -> bool:
        return True
