from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from core.db import make_engine, make_sessions
from core.redis import make_redis
from core.settings import Settings
from models.types import Service
from tests.activities.desk import Desk


@pytest.fixture(scope="package")
async def desk(make_database: Callable[[str], str], redis_url: str) -> AsyncIterator[Desk]:
    """Over a database of its own: reconciliation looks at every order there is."""
    settings = Settings(database_url=make_database("desk"))
    async with AsyncExitStack() as stack:
        sessions = {}
        for service in (Service.ORDERS, Service.CARTS, Service.CATALOG, Service.NOTIFICATIONS):
            engine = make_engine(settings.service_database_url(service))
            stack.push_async_callback(engine.dispose)
            sessions[service] = make_sessions(engine)
        redis = make_redis(redis_url)
        stack.push_async_callback(redis.aclose)
        yield Desk(sessions, redis, settings.service_database_url(Service.PAYMENTS))
