"""`mercato worker`: carries out workflows and their activities."""

from typing import Annotated

import typer
import uvloop

from cli.running import present_settings


def worker(queue: Annotated[str, typer.Argument(help="The task queue to poll; empty: checkout.")] = "") -> None:
    """Poll a task queue until SIGTERM, then finish what was begun."""
    from core.logging import configure_logging
    from core.telemetry import configure_telemetry
    from workers import main
    from workflows.options import TASK_QUEUE

    if queue not in ("", TASK_QUEUE):
        raise typer.BadParameter(f"no such task queue: {queue}; there is: {TASK_QUEUE}")
    settings = present_settings()
    configure_logging(settings, "worker")
    configure_telemetry(settings, "worker")
    uvloop.run(main.run(settings))
