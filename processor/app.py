"""The processor as an ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from processor import idempotency, routes, testing, three_d_secure, webhooks
from processor.database import UNREACHABLE, Pool, create_schema, open_pool
from processor.errors import StripeError, api_error, invalid_request, unrecognized_url
from processor.faults import Faults, faults_from_json
from processor.ids import new_id
from processor.pipeline import Pipeline
from processor.settings import Settings

PRUNE_EVERY = 3600
log = logging.getLogger("processor")


def create_app(settings: Settings) -> Starlette:
    """An application that makes its schema and opens its pool when it starts."""
    faults = Faults(faults_from_json(settings.faults) if settings.faults else [])

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await create_schema(settings.database_url)
        pool = await open_pool(settings.database_url, settings.pool_size)
        app.state.pool = pool
        outbox = app.state.outbox = webhooks.Outbox(pool, faults, settings)
        await outbox.start()
        app.state.pipeline = Pipeline(pool, faults, settings.public_url, outbox)
        chores = [asyncio.create_task(_prune(pool)), asyncio.create_task(outbox.deliver_forever())]
        yield
        for chore in chores:
            chore.cancel()
        try:
            await asyncio.wait_for(pool.close(), 0.5)
        except TimeoutError:
            pool.terminate()

    app = Starlette(routes=[*routes.ROUTES, *testing.ROUTES, *three_d_secure.ROUTES], lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.faults = faults
    app.add_exception_handler(HTTPException, _unrecognized)
    app.add_exception_handler(StripeError, _refused)
    app.add_exception_handler(asyncpg.DataError, _unstorable)
    for error in UNREACHABLE:
        app.add_exception_handler(error, _unavailable)
    return app


async def _prune(pool: Pool) -> None:
    while True:
        with suppress(*UNREACHABLE):
            await idempotency.prune(pool)
            await webhooks.prune(pool)
        await asyncio.sleep(PRUNE_EVERY)


async def _unrecognized(request: Request, _: Exception) -> Response:
    """No such address, or not with this method: 404, as at Stripe."""
    return _json(unrecognized_url(request.method, request.url.path))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, StripeError)
    return _json(error)


async def _unstorable(_: Request, __: Exception) -> Response:
    """Text that PostgreSQL does not take, such as a null byte in an id."""
    return _json(invalid_request("Invalid string: it cannot be stored."))


async def _unavailable(request: Request, error: Exception) -> Response:
    log.warning("the database did not answer (%s): %r", request.url.path, error)
    return _json(api_error(503))


def _json(error: StripeError) -> Response:
    reply = error.reply()
    return JSONResponse(reply.body, reply.status, {"Request-Id": new_id("req", 14), **reply.headers})
