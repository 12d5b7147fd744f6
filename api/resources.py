"""Opens what an API process holds open, for the services it serves. Nothing has to be reachable for that."""

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from uuid import UUID

import httpx
from fastapi import FastAPI

from api.clients import CartsClient, CatalogClient, UsersClient, internal_http
from api.deps import Resources
from api.metrics import BusinessMetrics
from api.tokens import make_verifier
from core.db import Sessions, make_engine, make_sessions
from core.events import EventHub, ReadNewer
from core.faults import switchboard
from core.redis import make_redis
from core.settings import Settings
from core.temporal import TemporalConnector
from models.orders import CustomerEvent
from models.types import Service
from services import events


async def open_resources(
    settings: Settings, services: Collection[Service], app: FastAPI, stack: AsyncExitStack
) -> Resources:
    """Everything is closed by `stack`, in reverse order; each service has the database role of its own only."""
    sessions = {service: _open_sessions(settings, service, stack) for service in services}
    redis = make_redis(settings.redis_url or f"redis://127.0.0.1:{settings.redis_port}/0")
    stack.push_async_callback(redis.aclose)
    temporal = TemporalConnector(settings)
    stack.push_async_callback(temporal.close)

    def client_of(service: Service, url: str) -> httpx.AsyncClient:
        http = internal_http(settings, url, app if service in services else None)
        stack.push_async_callback(http.aclose)
        return http

    users = UsersClient(client_of(Service.USERS, settings.users_url))
    hub = EventHub(_newer_events(sessions), redis)
    if Service.ORDERS in services:
        await hub.start()
        stack.push_async_callback(hub.stop)
    return Resources(
        settings=settings,
        sessions=sessions,
        redis=redis,
        temporal=temporal,
        catalog=CatalogClient(client_of(Service.CATALOG, settings.catalog_url)),
        users=users,
        carts=CartsClient(client_of(Service.CARTS, settings.carts_url)),
        tokens=make_verifier(settings, services, users.keys),
        events=hub,
        faults=switchboard(settings, "api"),
        extra={"metrics": BusinessMetrics(sessions)},
    )


def _open_sessions(settings: Settings, service: Service, stack: AsyncExitStack) -> Sessions:
    engine = make_engine(settings.service_database_url(service), application=f"mercato-api-{service.value}")
    stack.push_async_callback(engine.dispose)
    return make_sessions(engine)


def _newer_events(sessions: Mapping[Service, Sessions]) -> ReadNewer:
    async def read(cursors: Mapping[UUID, int]) -> list[CustomerEvent]:
        async with sessions[Service.ORDERS]() as session:
            return await events.newer(session, cursors)

    return read
