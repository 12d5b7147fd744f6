"""Plain SQL scripts in a migration: what is read is what is run."""

from typing import Any

from alembic import op


def run_script(script: str) -> None:
    """Run several statements inside the migration's transaction (asyncpg prepares one statement at a time otherwise)."""
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins the transaction with its first statement

    async def execute(driver: Any) -> None:
        await driver.execute(script)

    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(execute)
