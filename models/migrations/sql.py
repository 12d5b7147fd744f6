"""Plain SQL scripts in a migration: what is read is what is run."""

from typing import Any

from alembic import op

HOURS = 6 * 3600.0  # seconds


def run_script(script: str) -> None:
    """Run several statements in the migration's transaction; asyncpg would prepare only one at a time."""
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins the transaction with its first statement

    async def execute(driver: Any) -> None:
        # the engine's budget of a few seconds is a request's: an index on millions of rows takes what it takes
        await driver.execute(f"SET LOCAL statement_timeout = 0;{script}", timeout=HOURS)

    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(execute)
