"""Somebody who is told of events: keeps what arrives, and answers as it is told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import stripe

from tests.e2e.shopper import eventually


class Receiver(ThreadingHTTPServer):
    """`answers` are the statuses of the next deliveries; then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[bytes, str]] = []  # (body, signature)
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"

    @contextmanager
    def serving(self) -> Iterator["Receiver"]:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    def events(self, secret: str) -> list[Any]:
        """What arrived so far, each verified with the official client."""
        return [stripe.Webhook.construct_event(body, header, secret) for body, header in list(self.received)]

    async def arrived(self, number: int) -> None:
        """Wait for so many deliveries."""

        async def enough() -> bool:
            return len(self.received) >= number

        await eventually(enough, 20)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((body, self.headers["stripe-signature"]))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""
