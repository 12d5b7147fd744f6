"""What must exist in PostgreSQL before migrations: our database, and the processor's role and schema."""

import asyncpg
from sqlalchemy.engine import make_url

from cli.running import Unreachable
from core.settings import derived_role_url, role_name

PROCESSOR = "processor"


async def ensure_database(owner_url: str) -> None:
    """Make the database that `owner_url` names, if it is missing."""
    url = make_url(owner_url)
    connection = await asyncpg.connect(str(url.set(database="postgres").render_as_string(hide_password=False)))
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", url.database):
            await connection.execute(f'CREATE DATABASE "{url.database}"')
    finally:
        await connection.close()


async def refuse_unusable(owner_url: str) -> None:
    """Try to sign in.

    Raises:
        Unreachable: the server says no.
    """
    try:
        connection = await asyncpg.connect(owner_url, timeout=10)
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise Unreachable(f"MERCATO_DATABASE_URL is set, but cannot be used: {error}") from error
    await connection.close()


async def provision_processor(owner_url: str) -> str:
    """A role and a schema for the processor, which is an outside company and sees nothing else. Its address."""
    role = role_name(PROCESSOR)
    url = derived_role_url(owner_url, role)
    connection = await asyncpg.connect(owner_url)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await connection.execute(f"CREATE ROLE {role} LOGIN")
        await connection.execute(f"ALTER ROLE {role} PASSWORD '{make_url(url).password}'")
        await connection.execute(f"GRANT {role} TO CURRENT_USER")  # an owner who is no superuser could not give it away
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {PROCESSOR} AUTHORIZATION {role}")
    finally:
        await connection.close()
    return url
