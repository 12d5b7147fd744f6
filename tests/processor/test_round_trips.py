"""How often a call goes to the database and back, counted on the wire: what a call costs, whatever the machine."""

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.processor.process import running

SSL_REQUEST = 80877103
ANSWERED = (b"S", b"Q")  # Sync and Query: the server answers them, and the client waits
HELD = {"amount": "1000", "currency": "eur", "capture_method": "manual"}


class CountingProxy(socketserver.ThreadingTCPServer):
    """Stands between a client and PostgreSQL at `target`, and counts round trips."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        self.round_trips = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Answers its host and port."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{self.server_address[1]}"
        finally:
            self.shutdown()
            self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: CountingProxy

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as database:
            threading.Thread(target=_pour, args=(database, self.request), daemon=True).start()
            with suppress(OSError):
                self._count(database)

    def _count(self, database: socket.socket) -> None:
        waiting, started = b"", False
        while received := self.request.recv(65536):
            waiting += received
            while (size := _size(waiting, started)) is not None:
                if not started:
                    started = struct.unpack("!i", waiting[4:8])[0] != SSL_REQUEST
                elif waiting[:1] in ANSWERED:
                    self.server.round_trips += 1
                waiting = waiting[size:]
            database.sendall(received)


def _size(waiting: bytes, started: bool) -> int | None:
    """Of the first message, which has a letter before its length once the session has started; None if incomplete."""
    letter = 1 if started else 0
    if len(waiting) < letter + 4:
        return None
    size = letter + int(struct.unpack("!i", waiting[letter : letter + 4])[0])
    return size if len(waiting) >= size else None


def _pour(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65536):
            target.sendall(received)
        target.shutdown(socket.SHUT_RDWR)  # whoever says goodbye waits for the line to be cut


@pytest.fixture(scope="module")
def proxied(processor_url: str, platform_database_url: str) -> Iterator[tuple[httpx.Client, CountingProxy]]:
    """A processor with a single connection, whose statements are all prepared, and what it asks of the database."""
    address = urlsplit(platform_database_url)
    proxy = CountingProxy((address.hostname or "", address.port or 0))
    with proxy.serving() as host:
        url = address._replace(netloc=f"{address.username}:{address.password}@{host}").geturl()
        with (
            running(url, "--pool-size", "1") as (base_url, _),
            httpx.Client(base_url=base_url, headers={"Authorization": "Bearer sk_test_round_trips"}) as http,
        ):
            yield http, proxy


def _walk(http: httpx.Client, proxy: CountingProxy, run: str) -> dict[str, int]:
    """An order's calls, and the round trips of each."""
    counted = {}

    def call(name: str, method: str, path: str, status: int = 200, **form: str) -> Any:
        before = proxy.round_trips
        headers = {"Idempotency-Key": f"{run} {name.removesuffix(' again')}"} if method == "POST" else {}
        reply = http.request(method, f"/v1/payment_intents{path}", data=form or None, headers=headers)
        counted[name] = proxy.round_trips - before
        assert reply.status_code == status, reply.text
        assert ("idempotent-replayed" in reply.headers) == name.endswith(" again")
        return reply.json()

    intent = call("create", "POST", "", **HELD)["id"]
    call("decline", "POST", f"/{intent}/confirm", 402, payment_method="pm_card_chargeDeclined")
    call("confirm", "POST", f"/{intent}/confirm", payment_method="pm_card_visa")
    call("confirm again", "POST", f"/{intent}/confirm", payment_method="pm_card_visa")
    call("capture", "POST", f"/{intent}/capture")
    call("retrieve", "GET", f"/{intent}")
    other = call("confirmed create", "POST", "", **HELD, payment_method="pm_card_visa", confirm="true")["id"]
    call("cancel", "POST", f"/{other}/cancel")
    return counted


def test_a_call_goes_to_the_database_no_more_often_than_it_must(proxied):
    """One for the key, one for the intent where there is one, one for all that is written."""
    http, proxy = proxied
    _walk(http, proxy, "so that every statement is prepared")
    assert _walk(http, proxy, "counted") == {
        "create": 2,
        "decline": 3,
        "confirm": 3,
        "confirm again": 1,
        "capture": 3,
        "retrieve": 1,
        "confirmed create": 2,
        "cancel": 3,
    }
