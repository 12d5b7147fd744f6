"""The throw-away platform of a chaos run: everything `mercato up` starts, on free ports, twice the workers."""

import os
import random
import socket
import tempfile
from pathlib import Path

from cli.platform import Platform, Variation
from core.settings import Settings

HOST = "127.0.0.1"
FOR_EVER = 1_000_000  # restarts: being killed often is what it is for

# Retries and repairs come soon, so that healing can be watched; nobody is logged out on the way.
SOON = {
    "fast_step_seconds": "1",
    "attempt_seconds": "2",
    "workflow_task_seconds": "2",
    "round_seconds": "4",
    "round_pause_seconds": "2",
    "reconcile_every_seconds": "2",
    "reconcile_after_seconds": "5",
    "processor_timeout_seconds": "1.5",
    "reservation_ttl_seconds": "15",
    "stream_heartbeat_seconds": "2",
    "access_token_seconds": "86400",
    "rate_limits": "off",
    "environment": "test",
    "give_back_after_seconds": "1",
}
PORTS = (
    *("port", "processor_port", "postgres_port", "redis_port", "temporal_port", "temporal_ui_port"),
    "worker_metrics_port",
)


def throw_away_platform(directory: Path) -> Platform:
    """Not started yet; its data and its servers' log are in `directory`. PostgreSQL writes to the disk, as in earnest.

    What the shell says about Mercato is forgotten in this process: it is about another platform.
    """
    for name in [name for name in os.environ if name.startswith("MERCATO_")]:
        del os.environ[name]
    *given, other_worker = free_ports(len(PORTS) + 1)
    ports = dict(zip(PORTS, given, strict=True))
    settings = Settings.model_validate({**SOON, "data_dir": directory, "host": HOST, **ports})
    log = (directory / "servers.log").open("a", buffering=1)
    variation = Variation(
        environment={f"MERCATO_{name.upper()}": value for name, value in SOON.items()},
        workers=[other_worker],
        restarts=FOR_EVER,
        write=lambda name, line: print(f"{name:<9} | {line}", file=log),
    )
    return Platform(settings, variation)


def make_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="mercato-chaos-"))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the range from which the kernel gives ports to outgoing connections.

    From that range, a connection to a server that is down just now might be given the server's own port.
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                found.add(port)
    return list(found)
