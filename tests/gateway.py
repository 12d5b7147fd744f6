"""The gateway as docker-compose.yml runs it: Traefik with the very files it mounts there, on ports of a test."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import probes
from cli.process import Program
from models.types import Service
from tests.stack import HOST, Running, Stack, free_port, inherited_environment

FILES = Path(__file__).parents[1] / "deploy/docker/traefik"
TRAEFIK = Path(sys.executable).with_name("traefik")
ANOTHER_ADDRESS = "127.0.0.2"  # to call from; a gateway counts each address on its own
needs_another_address = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8 from the start")


@dataclass
class Gateway(Running):
    """`url` is what people call; `ops_url` has health and metrics; `api_url` tells what Traefik made of its files."""

    url: str = ""
    ops_url: str = ""
    api_url: str = ""


@asynccontextmanager
async def running_gateway(stack: Stack, addresses: Mapping[Service, str]) -> AsyncIterator[Gateway]:
    """Traefik in front of `addresses`."""
    ports = {name: free_port() for name in ("web", "ops", "traefik")}
    settings = stack.directory / f"traefik-{ports['web']}.yml"
    settings.write_text(yaml.safe_dump(_settings(ports)))
    program = Program(
        name=f"gateway-{ports['web']}",
        command=[str(TRAEFIK), f"--configFile={settings}"],
        environment={
            **inherited_environment(),
            **{f"MERCATO_{service.name}_URL": url for service, url in addresses.items()},
        },
        # not /ping, which answers before the routes are read
        ready=probes.http(HOST, ports["traefik"], "/api/http/routers/docs@file"),
        restarts=0,
    )
    url, ops_url, api_url = (f"http://{HOST}:{port}" for port in ports.values())
    gateway = Gateway(stack, program, url, ops_url, api_url)
    await asyncio.to_thread(gateway.start)
    yield gateway
    await gateway.stop()


def _settings(ports: Mapping[str, int]) -> dict[str, Any]:
    """The file of Compose with other ports, and with Traefik's own API to look into."""
    settings: dict[str, Any] = yaml.safe_load((FILES / "traefik.yml").read_text())
    settings["entryPoints"]["traefik"] = {}
    for name, port in ports.items():
        settings["entryPoints"][name]["address"] = f"{HOST}:{port}"
    settings["providers"]["file"]["filename"] = str(FILES / "dynamic.yml")
    return settings | {"api": {"insecure": True, "dashboard": False}}
