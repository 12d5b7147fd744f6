"""`mercato processor`: the mock payment processor alone. A program of its own, so it takes this process's place."""

import os
import sys
from typing import Annotated

import typer

from cli.running import present_settings


def processor(
    host: Annotated[str, typer.Option(help="Address to listen on; empty: MERCATO_HOST.")] = "",
    port: Annotated[int, typer.Option(help="Port; 0: MERCATO_PROCESSOR_PORT.")] = 0,
    database_url: Annotated[str, typer.Option(help="Its own database; empty: MERCATO_PROCESSOR_DATABASE_URL.")] = "",
) -> None:
    """Run the mock payment processor until SIGTERM."""
    settings = present_settings()
    url = database_url or settings.processor_database_url
    if not url:
        raise typer.BadParameter("set MERCATO_PROCESSOR_DATABASE_URL or give --database-url")
    listen = ["--host", host or settings.host, "--port", str(port or settings.processor_port)]
    environment = os.environ | {"PROCESSOR_DATABASE_URL": url}  # not a flag: other users can read those
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "processor", *listen], environment)
