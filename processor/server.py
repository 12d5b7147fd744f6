"""uvicorn, with one thing more: a response that closes the connection instead of answering."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class DroppableProtocol(HttpToolsProtocol):
    """Hands each request its transport (`scope["state"]["transport"]`), so that a lost reply is a lost connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Dropped(Response):
    """No answer: the socket is closed under the client's feet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        transport: Any = scope["state"]["transport"]
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


def route(method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """An address that takes this method and no other, HEAD included."""
    made = Route(path, endpoint, methods=[method])
    made.methods = {method}
    return made


async def serve(app: Starlette, host: str, port: int, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT; requests still running then have one second left."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=DroppableProtocol,
        ws="none",
        access_log=False,
        log_level=log_level,
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )
    await uvicorn.Server(config).serve()


def run(work: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, in the loop that uvicorn would take: uvloop where there is one."""
    with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
        runner.run(work)
