"""Our own programs as `mercato up` and the tests run them: the processor, the API, the worker."""

import os
import sys
from collections.abc import Mapping, Sequence

from cli import probes
from cli.process import Program
from core.settings import Settings
from models.types import PROCESSOR_EVENTS, Service

MERCATO = (sys.executable, "-m", "cli.main")
OWNERS_ADDRESSES = ("MERCATO_DATABASE_URL", "MERCATO_PROCESSOR_DATABASE_URL")


def app_environment(settings: Settings, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of API and worker: every address, each service's own role, never the owner's password."""
    environment = {name: value for name, value in os.environ.items() if name not in OWNERS_ADDRESSES}
    environment |= {f"MERCATO_{s.value.upper()}_DATABASE_URL": settings.service_database_url(s) for s in Service}
    environment |= {
        "MERCATO_DATA_DIR": str(settings.data_dir.resolve()),
        "MERCATO_REDIS_URL": settings.redis_url,
        "MERCATO_TEMPORAL_ADDRESS": settings.temporal_address,
        "MERCATO_TEMPORAL_UI_URL": settings.temporal_ui_url,
        "MERCATO_PROCESSOR_URL": settings.processor_url,
        "MERCATO_PUBLIC_URL": settings.public_url,
        "MERCATO_WORKER_METRICS_PORT": str(settings.worker_metrics_port),
        # a proxy of this shell's is not the way to our own processor
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1", "localhost"])),
        "PYTHONUNBUFFERED": "1",
    }
    if file := settings.present_faults_file:
        environment["MERCATO_FAULTS_FILE"] = str(file)
    return environment | dict(extra or {})


def webhook_environment(settings: Settings, api_address: str) -> dict[str, str]:
    """What the mock processor must know to tell the API at `api_address` of what happens."""
    return {
        "PROCESSOR_WEBHOOK_URL": f"{api_address}/api/payments/webhook",
        "PROCESSOR_WEBHOOK_SECRET": settings.webhook_secret.get_secret_value().partition(",")[0],
        "PROCESSOR_WEBHOOK_ACCOUNT": settings.processor_api_key.get_secret_value(),
        "PROCESSOR_WEBHOOK_EVENTS": ",".join(PROCESSOR_EVENTS),
    }


def processor(
    database_url: str,
    host: str,
    port: int,
    needs: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Program:
    """The mock payment processor, a program of its own."""
    own = {"PROCESSOR_DATABASE_URL": database_url, "PYTHONUNBUFFERED": "1"}
    return Program(
        name="processor",
        command=[sys.executable, "-m", "processor", "--host", host, "--port", str(port)],
        environment=os.environ | own | dict(environment or {}),
        needs=needs,
        ready=probes.http(host, port, "/health"),
    )


def api(
    environment: Mapping[str, str],
    host: str,
    port: int,
    services: Sequence[Service] = (),
    needs: tuple[str, ...] = (),
    name: str = "api",
) -> Program:
    """`mercato serve`: all services in one process, or the named ones alone."""
    return Program(
        name=name,
        command=[*MERCATO, "serve", *(service.value for service in services), "--host", host, "--port", str(port)],
        environment=environment,
        needs=needs,
        ready=probes.http(host, port, "/health/ready"),
        stop_seconds=4,  # streams may be open; its port must be closed within 5 s
    )


def worker(
    environment: Mapping[str, str], host: str, metrics_port: int, needs: tuple[str, ...] = (), name: str = "worker"
) -> Program:
    """`mercato worker`, which says on `metrics_port` that it polls."""
    return Program(
        name=name,
        command=[*MERCATO, "worker"],
        environment={**environment, "MERCATO_WORKER_METRICS_PORT": str(metrics_port)},
        needs=needs,
        ready=probes.http(host, metrics_port, "/health/ready"),
        stop_seconds=15,  # it finishes the steps it has begun, for up to 12 s
    )
