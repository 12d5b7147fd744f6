"""A plain reverse proxy, the gateway of the test: one address in front of six services, told apart by path."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from models.types import Service

PREFIXES = {
    "/api/auth": Service.USERS,
    "/api/products": Service.CATALOG,
    "/api/categories": Service.CATALOG,
    "/api/cart": Service.CARTS,
    "/api/orders": Service.ORDERS,
    "/api/payments": Service.PAYMENTS,
    "/api/notifications": Service.NOTIFICATIONS,
}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


class Proxy:
    """Hands each request on as it is and each answer back as it comes, event streams included."""

    def __init__(self, addresses: Mapping[Service, str], http: httpx.AsyncClient) -> None:
        self._addresses = addresses
        self._http = http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        service = next((service for prefix, service in PREFIXES.items() if path.startswith(prefix)), None)
        if service is None:
            return Response(status_code=404)
        url = httpx.URL(self._addresses[service]).copy_with(
            raw_path=request.scope["raw_path"] + b"?" + request.scope["query_string"]
        )
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        asked = self._http.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await self._http.send(asked, stream=True)
        response = StreamingResponse(
            answer.aiter_raw(), status_code=answer.status_code, background=BackgroundTask(answer.aclose)
        )
        response.raw_headers = [
            (name.lower(), value) for name, value in answer.headers.raw if name.decode().lower() not in HOP_BY_HOP
        ]
        return response


@asynccontextmanager
async def running_proxy(addresses: Mapping[Service, str]) -> AsyncIterator[str]:
    """The proxy's own address, on a free port of this process."""
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as http:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            config = uvicorn.Config(
                Proxy(addresses, http), log_config=None, lifespan="off", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
                await running
