"""The command line. A command's module is imported when the command is run, so that `mercato --help` comes at once."""

import os
import sys
from importlib import import_module
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from models.errors import MercatoError

# name: (module, what is listed by --help). A module has a typer app named `app`, or a function named as the command.
COMMANDS = {
    "up": ("cli.up", "Start everything, wait until it is ready, run until Ctrl-C."),
    "down": ("cli.up", "End what `mercato up` started here."),
    "status": ("cli.up", "Show what runs, and where."),
    "demo": ("cli.demo", "Walk a shopper through the whole flow, live."),
    "orders": ("cli.orders", "List orders, or show one with its events."),
    "breaks": ("cli.breaks", "List what reconciliation has found wrong, resolve it, compare everything now."),
    "replay": ("cli.replay", "Replay workflow histories against the code at hand."),
    "check": ("cli.check", "Verify the platform's invariants across all services."),
    "faults": ("cli.faults", "Make things go wrong on purpose; never in production."),
    "chaos": ("cli.chaos", "Shoppers and random faults on a platform of its own, then check."),
    "serve": ("cli.serve", "Serve the API: all services, or some of them alone."),
    "worker": ("cli.worker", "Poll a task queue and carry out its workflows."),
    "processor": ("cli.processor", "Run the mock payment processor alone."),
    "migrate": ("cli.migrate", "Bring the database to the newest revision."),
    "seed": ("cli.migrate", "Fill the catalogue and add the demo users."),
    "staff": ("cli.staff", "Make somebody a member of staff."),
    "env": ("cli.env", "Write .env with new secrets, for docker-compose.yml."),
}


class LazyCommands(TyperGroup):
    """Lists commands from the table above; imports the one that is run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands.update({name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            return args[0], _load(args[0]), args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def mercato() -> None:
    """An e-commerce platform whose checkout is a durable workflow."""


def main() -> None:
    """Run the command line and end the process at once, with everything written.

    Temporal's SDK can abort when the interpreter tears itself down, so that never happens.
    """
    code = 1
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except ValidationError as error:
        sys.stderr.write(_unfit_settings(error))
    except MercatoError as error:
        sys.stderr.write(f"{error}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        os._exit(code)


def _load(name: str) -> Any:
    module = import_module(COMMANDS[name][0])
    commands: typer.Typer | None = getattr(module, "app", None)
    if commands is None:
        commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        commands.command(name)(getattr(module, name))
    loaded = typer.main.get_command(commands)
    loaded.name = name
    return loaded


def _unfit_settings(error: ValidationError) -> str:
    lines = [
        f"  MERCATO_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" if one["loc"] else f"  {one['msg']}"
        for one in error.errors(include_url=False, include_input=False)
    ]
    return "\n".join([f"{error.title} cannot be used:", *lines, ""])


def _flush() -> None:
    if telemetry := sys.modules.get("core.telemetry"):
        telemetry.flush_telemetry()
    if loguru := sys.modules.get("loguru"):
        loguru.logger.complete()
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
