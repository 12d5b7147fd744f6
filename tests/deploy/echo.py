"""Six servers that say what reached them, in place of the services: what a gateway does to a request is seen there."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from models.types import Service
from tests.stack import HOST

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Echoes:
    """`go_on` lets every open stream send its second event; `dropped` counts requests that were given no answer."""

    addresses: dict[Service, str] = field(default_factory=dict)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: Counter[str] = field(default_factory=Counter)

    async def _answer(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *lines = head.rstrip().split("\r\n")
        method, path, _ = request.split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if path.endswith("/dropped"):
            self.dropped[method] += 1
        elif path.endswith("/events"):
            await self._stream(writer)
        else:
            told = {"service": service, "method": method, "path": path, "headers": headers, "bytes": len(body)}
            content = json.dumps(told).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(content) + content)
            await writer.drain()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + _chunk(b"data: first\n\n"))
        await writer.drain()
        await self.go_on.wait()
        writer.write(_chunk(b"data: second\n\n") + _chunk(b""))
        await writer.drain()

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator["Echoes"]:
        echoes = cls()
        async with AsyncExitStack() as stack:
            for service in Service:
                server = await asyncio.start_server(partial(echoes._answer, service), HOST, 0)
                stack.callback(server.close)
                echoes.addresses[service] = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
            yield echoes


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
