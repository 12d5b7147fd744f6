"""`mercato faults`: what goes wrong on purpose in the platform that runs here. Refused in production."""

import asyncio
import secrets
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from cli import servers
from cli.console import console, fail
from cli.running import Running, present_settings, running
from core.faults import HANG_SECONDS, KINDS, STEPS, Fault, FaultFile, Kind, Place
from core.settings import Settings
from models.types import normalize_order_number

SERVERS = ("postgres", "valkey", "temporal", "processor", "worker", "api")
SERVER_KINDS = {"kill": SERVERS, "pause": SERVERS, "off": ("valkey",)}
PROCESSOR = "processor"
WHOLE_NUMBER = len("XXXXX-XXXXX")
SECONDS = 5.0  # of pause, off, delay, when nothing is said

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def faults() -> None:
    """Make things go wrong on purpose, see what does, and end it. Never in production."""


@app.command("list")
def list_faults() -> None:
    """Everything that is armed: at our steps, and at the processor."""
    settings = present_settings()
    file, out = _file(settings), console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "where", "what it does"):
        table.add_column(column, overflow="fold")
    for fault in file.read():
        table.add_row(fault.id, f"{fault.place}, {fault.step}", escape(fault.says))
    known, words = asyncio.run(_of_processor(settings))
    for number, given in enumerate(known, 1):
        table.add_row(f"p{number}", PROCESSOR, escape(_processor_says(given)))
    out.print(table if table.row_count else "Nothing goes wrong on purpose.")
    if words:
        out.print(f"[yellow]{escape(words)}[/]")


@app.command("set")
def set_fault(
    where: Annotated[str, typer.Argument(help=f"worker, api, or a server: {', '.join(SERVERS)}.")],
    kind: Annotated[
        str,
        typer.Argument(
            help="worker: crash, error, refuse, delay, hang; api: crash, error; "
            "processor: any of its modes (reply_lost, silent, error_503, ...); a server: kill, pause; valkey: off."
        ),
    ],
    step: Annotated[str, typer.Option(help=f"The worker's step: {', '.join(STEPS['worker'])}.")] = "",
    after: Annotated[bool, typer.Option("--after", help="After its effect, before its report; else before.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Of delay, hang, pause, off and the processor's modes.")] = None,
    times: Annotated[int, typer.Option(min=0, help="How often; 0: until it is cleared.")] = 1,
    order: Annotated[str, typer.Option(help="Only this order: id or number.")] = "",
    customer: Annotated[str, typer.Option(help="Only this customer's orders: id.")] = "",
    rate: Annotated[float, typer.Option(min=0, max=1, help="Only this share of orders, or of the requests.")] = 1,
    seed: Annotated[int, typer.Option(help="Which orders `--rate` means: the same seed, the same orders.")] = 0,
    operations: Annotated[str, typer.Option(help="The processor's: create, confirm, capture, ...; by comma.")] = "",
) -> None:
    """Arm one fault, or kill or hold a server now. Says what it will do."""
    settings = present_settings()
    file = _file(settings)
    if kind in SERVER_KINDS:
        _strike_server(settings, where, kind, SECONDS if seconds is None else seconds)
    elif where == PROCESSOR:
        modes = {"mode": kind, "seconds": seconds, "rate": rate, "times": times or None, "order_id": order or None}
        chosen = [name.strip() for name in operations.split(",") if name.strip()]
        asyncio.run(_arm_processor(settings, modes | {"operations": chosen}))
    else:
        fault = Fault(
            id=secrets.token_hex(3),
            place=_place(where),
            kind=_kind(where, kind),
            step=_step(where, step),
            moment="after" if after else "before",
            seconds=seconds if seconds is not None else HANG_SECONDS if kind == "hang" else SECONDS,
            times=times or None,
            order=_order(order),
            customer=_customer(customer),
            rate=rate,
            seed=seed,
        )
        file.add(fault)
        console().print(f"[bold]{fault.id}[/] {escape(fault.says)}")


@app.command("clear")
def clear(
    fault: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it; empty: all.")] = "",
) -> None:
    """End all faults, ours and the processor's, or one."""
    settings = present_settings()
    gone = _file(settings).remove(*filter(None, [fault]))
    cleared, words = asyncio.run(_clear_processor(settings, fault))
    if fault and not gone and not cleared:
        raise fail(f"There is no fault {fault}. {words}".strip())
    console().print(f"{len(gone) + cleared} cleared.")
    if words and not fault:
        raise fail(words)


def _file(settings: Settings) -> FaultFile:
    path = settings.present_faults_file
    if path is None:
        raise fail("Nothing goes wrong on purpose in production.")
    return FaultFile(path)


# --- our own steps -------------------------------------------------------------------------------------------------


def _place(where: str) -> Place:
    if where not in KINDS:
        raise typer.BadParameter(f"{where} has no such fault; there are worker, api, {', '.join(SERVERS)}")
    return where


def _kind(where: str, kind: str) -> Kind:
    kinds = KINDS[_place(where)]
    if kind not in kinds:
        raise typer.BadParameter(f"{where} cannot {kind}; it can {', '.join(kinds)}, kill, pause")
    return kind


def _step(where: str, step: str) -> str:
    steps = STEPS[_place(where)]
    if not step and len(steps) == 1:
        return steps[0]
    if step not in steps:
        raise typer.BadParameter(f"say --step, one of {', '.join(steps)}")
    return step


def _order(typed: str) -> str:
    """An order's id or number as the switchboard compares them."""
    if not typed:
        return ""
    try:
        return str(UUID(typed))
    except ValueError:
        number = normalize_order_number(typed)
    if number is None or len(number) < WHOLE_NUMBER:
        raise typer.BadParameter(f"{typed} is neither an order's id nor its number")
    return number


def _customer(typed: str) -> str:
    try:
        return str(UUID(typed)) if typed else ""
    except ValueError:
        raise typer.BadParameter(f"{typed} is no customer's id") from None


# --- servers -------------------------------------------------------------------------------------------------------


def _strike_server(settings: Settings, name: str, kind: str, seconds: float) -> None:
    if name not in SERVER_KINDS[kind]:
        raise typer.BadParameter(f"{kind} is for {', '.join(SERVER_KINDS[kind])}")
    present = _present(settings)
    try:
        pid = servers.process_of(present, name)
        if kind == "kill":
            servers.kill(pid)
            console().print(f"{name} (process {pid}) was killed with -9; `mercato up` brings it back.")
            return
        address = urlsplit(settings.redis_url)
        held = servers.paused(pid, seconds)
        if kind == "off":
            held = servers.deaf(address.hostname or settings.host, address.port or settings.redis_port, seconds)
        with held as guarding:
            words = "hears nobody" if kind == "off" else "stands still"
            console().print(f"{name} (process {pid}) {words} for {seconds:g} s; Ctrl-C lets it go at once.")
            guarding.wait()
    except servers.NotThere as error:
        raise fail(str(error)) from error
    except KeyboardInterrupt:
        pass
    console().print(f"{name} goes on.")


def _present(settings: Settings) -> Running:
    present = running(settings.data_dir)
    if present is None:
        raise fail("Mercato is not running here. Start it with `mercato up`.")
    return present


# --- the processor -------------------------------------------------------------------------------------------------


def _processor(settings: Settings) -> httpx.AsyncClient:
    address = settings.processor_url or f"http://{settings.host}:{settings.processor_port}"
    return httpx.AsyncClient(base_url=address, timeout=10, trust_env=False)


async def _of_processor(settings: Settings) -> tuple[list[dict[str, Any]], str]:
    """What is armed there, and why that is not known."""
    try:
        async with _processor(settings) as http:
            answer = (await http.get("/test/faults")).raise_for_status()
            armed: list[dict[str, Any]] = answer.json()["data"]
            return armed, ""
    except (httpx.HTTPError, ValueError, KeyError):
        return [], "The processor cannot be asked what is armed there."


async def _arm_processor(settings: Settings, fault: dict[str, Any]) -> None:
    """Beside what is armed there: it replaces what it has for the same orders, so that is sent along."""
    given = {name: value for name, value in fault.items() if value not in (None, [])}
    armed, words = await _of_processor(settings)
    if words:
        raise fail(words)
    async with _processor(settings) as http:
        answer = await http.put("/test/faults", json=[*map(_again, armed), given])
    if answer.is_error:
        raise fail(f"The processor refused: {answer.json().get('error', {}).get('message', answer.status_code)}")
    console().print(escape(_processor_says(given)))


async def _clear_processor(settings: Settings, fault: str) -> tuple[int, str]:
    """How many were cleared there, and why not."""
    if fault and not (fault[:1] == "p" and fault[1:].isdecimal()):
        return 0, ""
    armed, words = await _of_processor(settings)
    if words:
        return 0, words
    left = [one for number, one in enumerate(armed, 1) if fault and fault != f"p{number}"]
    async with _processor(settings) as http:
        (await http.delete("/test/faults")).raise_for_status()
        if left:
            (await http.put("/test/faults", json=[_again(one) for one in left])).raise_for_status()
    return len(armed) - len(left), ""


def _again(armed: dict[str, Any]) -> dict[str, Any]:
    """A listed fault as it is armed."""
    return {name: value for name, value in armed.items() if name != "account" and value is not None}


def _processor_says(fault: dict[str, Any]) -> str:
    operations = ", ".join(fault.get("operations") or []) or "its requests"
    share = f", {fault['rate']:.0%} of them" if fault.get("rate", 1) < 1 else ""
    order = (fault.get("metadata") or {}).get("order_id") or fault.get("order_id")
    whose = f" about order {order}" if order else ""
    often = f"{fault['times']} times" if fault.get("times") else "until it is cleared"
    seconds = f" ({fault['seconds']:g} s)" if fault.get("seconds") else ""
    return f"The processor does {fault['mode']}{seconds} to {operations}{whose}{share}, {often}."
