"""`mercato serve`: the API, every service in one process or some of them alone."""

from typing import Annotated

import typer
import uvloop

from cli.running import present_settings
from core.settings import SERVICE_PORTS
from models.types import Service


def serve(
    service: Annotated[list[Service] | None, typer.Argument(help="Serve only these; none named: all.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; empty: MERCATO_HOST.")] = "",
    port: Annotated[int, typer.Option(help="Port; 0: the service's own, or MERCATO_PORT for all.")] = 0,
) -> None:
    """Serve HTTP until SIGTERM."""
    settings = present_settings()
    services = tuple(service or Service)
    own_port = SERVICE_PORTS[services[0]] if service else settings.port
    from api import main

    uvloop.run(main.serve(settings, services, host or settings.host, port or own_port))
