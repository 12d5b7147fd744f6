"""A load generator that costs less than what it measures: HTTP/1.1 over bare uvloop protocols, one process.

httpx and aiohttp spend several times as long on a request as the servers measured here do on the answer, so that they
would measure themselves. This one knows exactly what it needs: GET, keep-alive, Content-Length. Every body is compared
with the first that came for its path; other statuses, other bodies and lost connections are errors.

`python -m bench.http_load PORT SECONDS < PATHS` prints one JSON object.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from bench.report import percentile

HOST = "127.0.0.1"
CONNECTIONS = 16


@dataclass
class Load:
    """What one connection after the other asks for, and what came of it. Latencies in milliseconds."""

    paths: Iterator[str]
    bodies: dict[str, bytes] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    ended: bool = False


class Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self._end = 0  # of the answer under way in the buffer; 0: not known yet
        self._path = ""
        self._asked = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._end:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            self._head = head + 4
            self._end = self._head + _content_length(self._buffer)
        if len(self._buffer) >= self._end:
            self._check(bytes(self._buffer[self._head : self._end]), bytes(self._buffer[9:12]))
            self._buffer.clear()
            self._end = 0
            if self._load.ended:
                self._transport.close()
            else:
                self._ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._load.ended:
            self._load.errors += 1
        self.closed.set_result(None)

    def _ask(self) -> None:
        self._path = next(self._load.paths)
        self._asked = time.perf_counter()
        self._transport.write(f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode())

    def _check(self, body: bytes, status: bytes) -> None:
        self._load.latencies.append((time.perf_counter() - self._asked) * 1000)
        if status != b"200" or self._load.bodies.setdefault(self._path, body) != body:
            self._load.errors += 1


@dataclass(frozen=True)
class Result:
    """Milliseconds; `bytes` of the first path's body."""

    requests_per_second: float
    p50: float
    p95: float
    p99: float
    requests: int
    errors: int
    bytes: int


async def run(port: int, paths: list[str], seconds: float) -> Result:
    """Ask for `paths` in turn from CONNECTIONS connections at once."""
    load = Load(itertools.cycle(paths))
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections = [(await loop.create_connection(lambda: Connection(load), HOST, port))[1] for _ in range(CONNECTIONS)]
    await asyncio.sleep(seconds)
    load.ended = True
    count, elapsed = len(load.latencies), time.perf_counter() - started
    async with asyncio.timeout(30):
        await asyncio.gather(*(connection.closed for connection in connections))
    return Result(
        requests_per_second=count / elapsed,
        p50=percentile(load.latencies, 0.5),
        p95=percentile(load.latencies, 0.95),
        p99=percentile(load.latencies, 0.99),
        requests=count,
        errors=load.errors,
        bytes=len(load.bodies[paths[0]]),
    )


def _content_length(head: bytearray) -> int:
    at = head.index(b"content-length: ") + len(b"content-length: ")
    return int(head[at : head.index(b"\r", at)])


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("seconds", type=float)
    given = arguments.parse_args()
    result = uvloop.run(run(given.port, sys.stdin.read().split("\n"), given.seconds))
    json.dump(asdict(result), sys.stdout)


if __name__ == "__main__":
    main()
