"""Whether the process lives, and whether it can serve."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import httpx
from fastapi import Response
from sqlalchemy import text

from api.deps import Resources, ResourcesDep
from api.routing import Router
from api.shapes import ResponseModel
from core.db import Sessions
from models.types import Service

router = Router(tags=["operations"])

TIMEOUT_SECONDS = 1.0
DISPENSABLE = {"valkey", "processor"}  # without them things are late, nothing is refused or wrong


class Dependency(ResponseModel):
    status: Literal["up", "down"]
    detail: str | None = None


class Health(ResponseModel):
    status: Literal["ready", "degraded", "unavailable"]
    dependencies: dict[str, Dependency]


@router.get("/health/live", summary="The process runs")
async def live() -> dict[str, str]:
    return {"status": "alive"}


@router.get(
    "/health/ready",
    summary="What this process needs, each by name",
    response_model_exclude_none=True,
    responses={503: {"model": Health, "description": "A dependency that requests cannot do without is down"}},
)
async def ready(resources: ResourcesDep, response: Response) -> Health:
    checks = _checks(resources)
    found = dict(zip(checks, await asyncio.gather(*(_probe(check) for check in checks.values())), strict=True))
    down = {name for name, dependency in found.items() if dependency.status == "down"}
    if down - DISPENSABLE:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
        return Health(status="unavailable", dependencies=found)
    return Health(status="degraded" if down else "ready", dependencies=found)


def _checks(resources: Resources) -> dict[str, Callable[[], Awaitable[object]]]:
    checks: dict[str, Callable[[], Awaitable[object]]] = {
        f"postgres:{service.value}": lambda sessions=sessions: _select_one(sessions)  # type: ignore[misc]
        for service, sessions in resources.sessions.items()
    }
    checks["valkey"] = resources.redis.ping
    if Service.ORDERS in resources.sessions:
        checks["temporal"] = resources.temporal.healthy
    if Service.PAYMENTS in resources.sessions and resources.settings.processor_url:
        checks["processor"] = lambda: _answers(resources.settings.processor_url)
    return checks


async def _probe(check: Callable[[], Awaitable[object]]) -> Dependency:
    try:
        good = await asyncio.wait_for(check(), TIMEOUT_SECONDS)
    except Exception as error:  # whatever it raises, it is down; the name says enough and gives no address away
        return Dependency(status="down", detail=type(error).__name__)
    return Dependency(status="up") if good else Dependency(status="down", detail="unhealthy")


async def _select_one(sessions: Sessions) -> bool:
    async with sessions() as session:
        await (await session.connection()).execute(text("SELECT 1"))
    return True


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
        return (await http.get(f"{url.rstrip('/')}/health")).status_code < 500
