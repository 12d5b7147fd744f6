"""Bring every service's schema to the newest revision: roles, schemas, rights, then each service's own history."""

from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from core.db import make_engine, transactions
from core.settings import derived_role_url, role_name
from models.types import Service

HISTORIES = Path(__file__).parent.parent / "models" / "migrations"


async def migrate(owner_url: str, services: tuple[Service, ...] = tuple(Service)) -> None:
    """Idempotent; safe to run from several processes at once (an advisory lock lets them queue)."""
    engine = make_engine(owner_url, application="mercato-migrate", pool_size=1)
    lock = await asyncpg.connect(owner_url)
    try:
        await lock.execute("SELECT pg_advisory_lock(727274)")
        for service in services:
            await _provision(lock, owner_url, service)
            async with transactions(engine).begin() as connection:
                await connection.run_sync(_upgrade, service)
    finally:
        await lock.close()
        await engine.dispose()


async def _provision(connection: asyncpg.Connection, owner_url: str, service: Service) -> None:
    """A schema, and a role that may use this schema and nothing else.

    Rights are default privileges, given before the tables are made, so that a migration can take some back
    (an append-only table loses UPDATE and DELETE).
    """
    role, schema = role_name(service.value), service.value
    password = make_url(derived_role_url(owner_url, role)).password
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"CREATE ROLE {role} LOGIN")
    await connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    await connection.execute(
        f"""
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
        CREATE SCHEMA IF NOT EXISTS {schema};
        GRANT USAGE ON SCHEMA {schema} TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {role};
        """
    )


def _upgrade(connection: Connection, service: Service) -> None:
    config = Config()
    config.set_main_option("script_location", str(HISTORIES))
    config.set_main_option("version_locations", str(HISTORIES / service.value))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, schema=service.value)
    command.upgrade(config, "head")
