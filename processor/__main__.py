"""`python -m processor --host 127.0.0.1 --port 5010 --database-url postgresql://...`"""

import logging
import sys

import asyncpg

from processor.app import create_app
from processor.database import create_schema
from processor.errors import StripeError
from processor.server import run, serve
from processor.settings import Settings, read_settings


def main() -> None:
    """Serve until told to end. Exit code 1 with a sentence if the database or a setting is not to be used."""
    settings = read_settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s %(message)s")
    try:
        run(_run(settings))
    except StripeError as error:
        sys.exit(f"processor: --faults: {error}")


async def _run(settings: Settings) -> None:
    app = create_app(settings)
    try:
        await create_schema(settings.database_url)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        sys.exit(f"processor: the database cannot be used: {error}")
    await serve(app, settings.host, settings.port, settings.log_level)


main()
