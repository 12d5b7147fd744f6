"""What the containers run beside our programs, run here: on the embedded servers, which are the same programs."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
import yaml
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from cli import embedded
from tests.deploy.scripts import DOCKER, run_script
from tests.stack import HOST, Stack, free_port


async def test_the_namespace_is_made_once_and_keeps_histories_for_a_month(temporal_address: str) -> None:
    name = f"shop-{uuid4().hex}"
    for _ in range(2):
        done = await run_script("temporal/namespace.sh", TEMPORAL_ADDRESS=temporal_address, TEMPORAL_NAMESPACE=name)
        assert done.returncode == 0, done.stdout + done.stderr
    client = await Client.connect(temporal_address)
    found = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=name))
    assert found.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=30)


def test_temporal_is_told_the_same_as_the_development_server() -> None:
    flags = embedded.TEMPORAL_FLAGS
    told = dict(flags[i + 1].split("=", 1) for i, flag in enumerate(flags) if flag == "--dynamic-config-value")
    written = yaml.safe_load((DOCKER / "temporal/dynamic.yaml").read_text())
    assert {key: str(values[0]["value"]) for key, values in written.items()} == {
        key: value.strip('"') for key, value in told.items()
    }


async def test_temporals_databases_are_its_own(stack: Stack) -> None:
    """On a new server, because the names are fixed."""
    password_file = stack.postgres.password_file
    server = embedded.Postgres(stack.directory / "postgres-of-compose", HOST, free_port(), password_file, durable=False)
    program = replace(embedded.postgres(server), name="postgres-of-compose")
    await stack.awaitable(stack.supervisor.start(program))
    try:
        done = await run_script(
            "postgres/temporal.sh",
            POSTGRES_USER=embedded.OWNER,
            POSTGRES_DB="postgres",
            TEMPORAL_DB_PASSWORD="it's a secret",
            PGPASSWORD=password_file.read_text(),
            PGHOST=HOST,
            PGPORT=str(server.port),
        )
        assert done.returncode == 0, done.stderr
        for database in ("temporal", "temporal_visibility"):
            await _signs_in(server, "temporal", "it's a secret", database)
        owner = await asyncpg.connect(server.url("postgres"))
        await owner.execute("CREATE ROLE mercato_users LOGIN PASSWORD 'another'")
        await owner.close()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _signs_in(server, "mercato_users", "another", "temporal")
    finally:
        await stack.awaitable(stack.supervisor.stop(program.name))


async def _signs_in(server: embedded.Postgres, user: str, password: str, database: str) -> None:
    """And makes tables, as Temporal's schema job does."""
    connection = await asyncpg.connect(host=HOST, port=server.port, user=user, password=password, database=database)
    await connection.execute("CREATE TABLE mine ()")
    await connection.close()


async def test_a_container_says_whether_its_program_is_well(processor_url: str) -> None:
    port = processor_url.rpartition(":")[2]
    assert (await run_script("healthy", port, "/health")).returncode == 0
    assert (await run_script("healthy", port, "/health/none")).returncode != 0
    assert (await run_script("healthy", str(free_port()), "/health")).returncode != 0
