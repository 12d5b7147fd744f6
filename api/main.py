"""The HTTP face: one app for any choice of services, and the server that runs it."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from loguru import logger

from api import breaks, carts, catalog, docs, health, metrics, notifications, order_lists, orders, payments, sse, users
from api.errors import install_error_handlers
from api.middleware import RequestFrame, SizeLimit
from api.openapi import install_openapi
from api.resources import open_resources
from core.background import end
from core.logging import configure_logging
from core.settings import Settings
from core.telemetry import configure_telemetry, flush_telemetry
from models.types import Service

GRACE_SECONDS = 2  # for requests under way; event streams are closed at once
# An idle connection is given up by the client, not by us: a POST that meets it just being closed is lost, and nobody
# can tell whether it was read. So longer than clients (httpx 5 s, aiohttp 15 s) and the gateway (60 s) keep theirs.
KEEP_ALIVE_SECONDS = 75

ROUTERS: dict[Service, tuple[APIRouter, ...]] = {
    Service.USERS: (users.router,),
    Service.CATALOG: (catalog.router,),
    Service.CARTS: (carts.router,),
    # /orders/events and /orders/breaks before /orders/{id}
    Service.ORDERS: (sse.router, breaks.router, order_lists.router, orders.router),
    Service.PAYMENTS: (payments.router,),
    Service.NOTIFICATIONS: (notifications.router,),
}


def create_app(settings: Settings, services: Collection[Service] = tuple(Service)) -> FastAPI:
    """The app that serves `services`. Nothing is connected before its lifespan, and nothing must be there even then."""
    mounted = tuple(service for service in Service if service in services)
    documented = settings.environment != "production" or settings.docs
    app = FastAPI(
        title="Mercato",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to whatever host and scheme the request names
        openapi_url="/openapi.json" if documented else None,
        lifespan=_lifespan(settings, mounted),
        # spans, metrics and logs are RequestFrame's; FastAPI's own would come on top of them with every request
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # the last one added is the outermost
    app.add_middleware(SizeLimit, limit=settings.max_body_bytes)
    app.add_middleware(RequestFrame, settings=settings)
    install_error_handlers(app)
    app.include_router(health.router)
    if not settings.metrics_port:
        app.include_router(metrics.router)
    if documented:
        app.include_router(docs.router)
    for service in mounted:
        for router in ROUTERS[service]:
            app.include_router(router)
    others = [router for service in Service if service not in mounted for router in ROUTERS[service]]
    install_openapi(app, elsewhere=[route for router in others for route in router.routes])
    return app


def _lifespan(
    settings: Settings, services: Collection[Service]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            resources = app.state.resources = await open_resources(settings, services, app, stack)
            if Service.USERS in services:
                for work in users.background(resources):
                    await stack.enter_async_context(_beside(work))
            yield

    return lifespan


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs `work` until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end(task)


async def serve(settings: Settings, services: Collection[Service], host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then end within three seconds, open event streams or not.

    Run it with `uvloop.run(...)`. Raises SystemExit when the port is taken.
    """
    name = next(iter(services)).value if len(services) == 1 else "api"
    configure_logging(settings, name)
    configure_telemetry(settings, name)
    app = create_app(settings, services)
    servers = [_Server(app, app, host, port, settings.trusted_proxies)]
    if settings.metrics_port:
        servers.append(_Server(app, _metrics_app(app), host, settings.metrics_port))
    # What has been loaded stays: each full collection would look through all of it again, for more than 100 ms.
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _stop, servers)
    try:
        logger.info("Serving {} on http://{}:{}", ", ".join(service.value for service in services), host, port)
        await asyncio.gather(*(server.serve() for server in servers))
    finally:
        flush_telemetry()


def _stop(servers: list["_Server"]) -> None:
    for server in servers:
        server.should_exit = True


def _metrics_app(api: FastAPI) -> FastAPI:
    """`/metrics` alone, on a port that is not published, about the process that `api` runs in."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def read() -> Response:
        return await metrics.exposition(api.state.resources)

    return app


class _Server(uvicorn.Server):
    """Leaves signals to `serve` (uvicorn would raise them again at the end) and closes streams before it waits."""

    def __init__(self, api: FastAPI, app: FastAPI, host: str, port: int, trusted: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http="httptools",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(trusted),
                forwarded_allow_ips=trusted or None,
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._api = api

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        resources = getattr(self._api.state, "resources", None)
        if resources is not None:
            await resources.events.stop()
        await super().shutdown(sockets)
