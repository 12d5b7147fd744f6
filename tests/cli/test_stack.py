"""The servers that all other tests stand on."""

import asyncpg
import httpx
from redis.asyncio import Redis
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from core.settings import derived_role_url, role_name
from models.types import Service
from tests.e2e.shopper import eventually
from tests.stack import Platform


async def test_a_database_is_migrated_and_each_role_can_sign_in(database_url: str) -> None:
    for service in Service:
        connection = await asyncpg.connect(derived_role_url(database_url, role_name(service)))
        try:
            assert await connection.fetchval("SELECT current_user") == role_name(service)
            assert await connection.fetchval("SELECT has_schema_privilege($1, 'USAGE')", service.value)
        finally:
            await connection.close()


async def test_valkey_answers(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        assert await redis.ping()


async def test_closed_workflows_are_kept_for_thirty_days(temporal_address: str) -> None:
    client = await Client.connect(temporal_address)
    described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    assert described.config.workflow_execution_retention_ttl.seconds == 30 * 24 * 3600


async def test_the_platform_serves_and_its_worker_can_be_killed_and_brought_back(platform: Platform) -> None:
    async with httpx.AsyncClient(base_url=platform.base_url) as http:

        async def ready() -> bool:
            return (await http.get("/health/ready")).status_code == 200

        await eventually(ready)
        before = platform.worker.pid
        await platform.worker.kill()
        assert not platform.worker.alive
        await platform.worker.restart()
        assert platform.worker.alive
        assert platform.worker.pid != before


async def test_services_can_be_started_alone_beside_the_platform(platform: Platform) -> None:
    catalog = platform.start_api([Service.CATALOG])
    try:
        async with httpx.AsyncClient(base_url=catalog.base_url) as http:
            assert (await http.get("/api/products")).status_code == 200
            assert (await http.get("/api/cart")).status_code == 404
    finally:
        await catalog.stop()
    assert not catalog.alive
