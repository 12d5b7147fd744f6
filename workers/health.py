"""A worker's own small HTTP face: alive, ready, metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def _ready(_: Request) -> Response:
    return JSONResponse({"status": "ready"})


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@asynccontextmanager
async def serve_health(host: str, port: int) -> AsyncIterator[None]:
    """Serve /health/live, /health/ready and /metrics on `port` (0: not at all) while the worker polls."""
    if not port:
        yield
        return
    routes = [Route("/health/live", _ready), Route("/health/ready", _ready), Route("/metrics", _metrics)]
    server = _Server(uvicorn.Config(Starlette(routes=routes), host=host, port=port, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """Leaves signals to the worker."""

    def install_signal_handlers(self) -> None:
        return
