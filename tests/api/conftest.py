"""The users service alone, in this process, on real servers."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from api.main import create_app
from core.settings import Settings
from models.types import Service
from services import revocations
from tests.api.accounts import until


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        environment="test",
        data_dir=tmp_path_factory.mktemp("users"),
        database_url=database_url,
        redis_url=redis_url,
        rate_limits="off",
    )


@pytest.fixture(scope="session")
async def users_app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings, [Service.USERS])
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(users_app: FastAPI, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    redis = Redis.from_url(redis_url)
    await until(lambda: redis.exists(revocations.READY))
    await redis.aclose()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(users_app), base_url="http://shop.test") as client:
        yield client
