"""A worker's own small HTTP face: alive, ready, metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

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


@contextlib.asynccontextmanager
async def serve_health(host: str, port: int) -> AsyncIterator[None]:
    """Serve /health/live, /health/ready and /metrics on `port` (0: not at all) while the worker polls."""
    if not port:
        yield
        return
    routes = [Route("/health/live", _ready), Route("/health/ready", _ready), Route("/metrics", _metrics)]
    app = Starlette(routes=routes)
    server = _Server(uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False, lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """Leaves signals to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
