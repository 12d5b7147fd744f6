"""`mercato migrate` and `mercato seed`: what a database needs before anybody can shop."""

import asyncio
from typing import Annotated

import typer

from cli.running import present_settings


def migrate(
    processor: Annotated[bool, typer.Option(help="Also make the mock processor's role and schema.")] = False,
) -> None:
    """Bring the database to the newest revision, with the owner's address (MERCATO_DATABASE_URL)."""
    from cli.databases import provision_processor
    from core import migrations

    owner_url = present_settings().database_url
    if not owner_url:
        raise typer.BadParameter("set MERCATO_DATABASE_URL, or start the embedded server with `mercato up`")
    asyncio.run(migrations.migrate(owner_url))
    if processor:
        asyncio.run(provision_processor(owner_url))
    typer.echo("Every schema is at its newest revision.")


def seed() -> None:
    """Fill the catalogue and, outside production, add the demo users. What is there already stays as it is.

    Uses each service's own role, so the owner's address is one way to find it and the services' are the other.
    """
    from cli.seed import seed as fill

    settings = present_settings()
    if not (settings.database_url or settings.catalog_database_url):
        raise typer.BadParameter("set MERCATO_CATALOG_DATABASE_URL or MERCATO_DATABASE_URL, or start `mercato up`")
    asyncio.run(fill(settings))
    people = "" if settings.environment == "production" else " and demo users"
    typer.echo(f"Catalogue{people}: in place.")
