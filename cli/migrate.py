"""`mercato migrate` and `mercato seed`: what a database needs before anybody can shop."""

import asyncio

import typer

from cli.running import present_settings
from core.settings import Settings


def migrate() -> None:
    """Bring the database to the newest revision, with the owner's address (MERCATO_DATABASE_URL)."""
    from core import migrations

    asyncio.run(migrations.migrate(_settings_with_owner().database_url))
    typer.echo("Every schema is at its newest revision.")


def seed() -> None:
    """Fill the catalogue and add the demo users. What is there already stays as it is."""
    from cli.seed import seed as fill

    asyncio.run(fill(_settings_with_owner()))
    typer.echo("Catalogue and demo users are in place.")


def _settings_with_owner() -> Settings:
    settings = present_settings()
    if not settings.database_url:
        raise typer.BadParameter("set MERCATO_DATABASE_URL, or start the embedded server with `mercato up`")
    return settings
