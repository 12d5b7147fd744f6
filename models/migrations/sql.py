"""Plain SQL scripts in a migration: what is read is what is run."""

from typing import Any

from alembic import op


def run_script(script: str) -> None:
    """Run several statements in the migration's transaction; asyncpg would prepare only one at a time."""
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins the transaction with its first statement

    async def execute(driver: Any) -> None:
        await driver.execute(script)

    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(execute)
