"""`mercato worker`: carries out workflows and their activities."""

import asyncio
from typing import Annotated

import typer

from cli.running import present_settings


def worker(queue: Annotated[str, typer.Argument(help="The task queue to poll.")] = "") -> None:
    """Poll a task queue until SIGTERM, then finish what was begun."""
    from workers import main

    settings = present_settings()
    try:
        asyncio.run(main.run(settings, queue) if queue else main.run(settings))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
