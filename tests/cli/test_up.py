"""`mercato up`, `down`, `status` as a person uses them: real processes, free ports, a data folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from core.settings import Settings
from tests.cli.test_supervisor import is_dead
from tests.stack import HOST, Stack, free_port, inherited_environment

PASSWORD = "a-long-enough-password"
PORTS = ("PORT", "PROCESSOR_PORT", "POSTGRES_PORT", "REDIS_PORT", "TEMPORAL_PORT", "TEMPORAL_UI_PORT")


@dataclass
class Installation:
    """A data folder with its ports, and the command line on it."""

    data_dir: Path
    environment: dict[str, str]

    def mercato(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=90,
        )

    def up(self) -> None:
        done = self.mercato("up", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def running(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data_dir / "up.json").read_text())
        return content

    @property
    def port(self) -> int:
        return int(self.environment["MERCATO_PORT"])

    def pid_of(self, program: str) -> int:
        return next(int(one["pid"]) for one in self.running["programs"] if one["name"] == program)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{HOST}:{self.port}{path}", timeout=10)

    def post(self, path: str, body: dict[str, str]) -> httpx.Response:
        return httpx.post(f"http://{HOST}:{self.port}{path}", json=body, timeout=10)


def make_installation(data_dir: Path) -> Installation:
    ports = {f"MERCATO_{name}": str(free_port()) for name in (*PORTS, "WORKER_METRICS_PORT")}
    own = {"MERCATO_DATA_DIR": str(data_dir), "MERCATO_RATE_LIMITS": "off"}
    return Installation(data_dir, inherited_environment() | ports | own)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = make_installation(tmp_path_factory.mktemp("up") / ".mercato")
    yield installation
    installation.mercato("down")


@pytest.fixture
def shop(installation: Installation) -> Installation:
    """Running; a test before may have stopped it."""
    if installation.mercato("status").returncode:
        installation.up()
    return installation


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def is_ready(shop: Installation) -> bool:
    try:
        return shop.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_up_serves_and_says_where(shop: Installation) -> None:
    said = shop.mercato("status")
    assert said.returncode == 0
    for words in (f"{HOST}:{shop.port}", "/docs", "shopper@mercato.test", "mercato-demo-pass", "mercato down"):
        assert words in said.stdout
    for program in ("postgres", "valkey", "temporal", "processor", "api", "worker"):
        assert program in said.stdout
    assert is_ready(shop)


def test_a_second_up_says_that_it_is_running_already(shop: Installation) -> None:
    for arguments in (["up"], ["up", "--detach"]):
        again = shop.mercato(*arguments)
        assert again.returncode == 0
        assert "running already" in again.stdout
        assert f"{HOST}:{shop.port}" in again.stdout


def test_a_taken_port_is_named_with_its_holder_and_its_setting(shop: Installation, tmp_path: Path) -> None:
    other = make_installation(tmp_path / "other")
    refused = other.mercato("up", MERCATO_PORT=str(shop.port))
    assert refused.returncode == 1
    assert f"Port {shop.port} is taken" in refused.stderr
    assert f"process {shop.pid_of('api')}" in refused.stderr
    assert "MERCATO_PORT" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_programs_that_serve_know_no_password_of_the_owner(shop: Installation) -> None:
    owner_password = (shop.data_dir / "postgres.password").read_text().strip()
    for program in ("api", "worker", "processor"):
        environment = Path(f"/proc/{shop.pid_of(program)}/environ").read_bytes()
        assert b"PATH=" in environment
        assert owner_password.encode() not in environment


def test_secrets_are_for_the_owner_of_the_folder_only(shop: Installation) -> None:
    for name in ("postgres.password", "signing.pem", "up.json"):
        assert (shop.data_dir / name).stat().st_mode & 0o077 == 0, name


def test_other_commands_find_what_runs(shop: Installation) -> None:
    done = shop.mercato("migrate")
    assert done.returncode == 0, done.stderr
    assert "newest revision" in done.stdout


def test_a_killed_database_comes_back_and_so_does_the_shop(shop: Installation) -> None:
    api, postgres = shop.pid_of("api"), shop.pid_of("postgres")
    os.kill(postgres, signal.SIGKILL)
    assert within(20, lambda: shop.pid_of("postgres") != postgres and is_ready(shop))
    assert shop.pid_of("api") == api


def test_sigterm_closes_the_port_within_five_seconds_and_data_survives(shop: Installation) -> None:
    account = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    assert shop.post("/api/auth/register", {**account, "fullName": "Ada Stays"}).status_code == 201
    pids = [int(one["pid"]) for one in shop.running["programs"]]
    os.kill(shop.running["pid"], signal.SIGTERM)
    assert within(5, lambda: not is_open(shop.port))
    assert within(20, lambda: shop.mercato("status").returncode == 1)
    assert all(map(is_dead, pids))
    shop.up()
    assert shop.post("/api/auth/login", account).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_kill_9_leaves_no_orphan_and_the_next_up_works(shop: Installation) -> None:
    pids = [int(one["pid"]) for one in shop.running["programs"]]
    os.kill(shop.running["pid"], signal.SIGKILL)
    assert within(10, lambda: all(map(is_dead, pids)))
    shop.up()
    assert is_ready(shop)


def test_down_ends_everything_and_may_be_repeated(shop: Installation) -> None:
    pids = [int(one["pid"]) for one in shop.running["programs"]]
    first = shop.mercato("down")
    assert first.returncode == 0
    assert "data is kept" in first.stdout
    assert all(map(is_dead, pids))
    second = shop.mercato("down")
    assert second.returncode == 0
    assert "not running" in second.stdout
    assert shop.mercato("status").returncode == 1


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["in front", "detached"])
def test_a_damaged_data_folder_is_left_alone_and_told_in_words(tmp_path: Path, detach: list[str]) -> None:
    damaged = make_installation(tmp_path / "data")
    folder = damaged.data_dir / "postgres"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "PG_VERSION").write_text("18\n")
    (folder / "orders").write_text("precious")
    refused = damaged.mercato("up", *detach)
    assert refused.returncode == 1
    for words in ("postgres ended with", str(folder), "nothing was changed"):
        assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (folder / "orders").read_text() == "precious"


def test_an_outside_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    alone = make_installation(tmp_path / "data")
    refused = alone.mercato("up", MERCATO_DATABASE_URL=f"postgresql://mercato:secret@{HOST}:{free_port()}/mercato")
    assert refused.returncode == 1
    assert "MERCATO_DATABASE_URL is set, but nothing answers" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_outside_servers_take_the_place_of_embedded_ones_and_ctrl_c_ends_the_rest(
    tmp_path: Path, stack: Stack, redis_url: str, temporal_address: str
) -> None:
    outside = make_installation(tmp_path / "data")
    outside.environment |= {
        "MERCATO_DATABASE_URL": stack.make_database("outside"),
        "MERCATO_REDIS_URL": redis_url,
        "MERCATO_TEMPORAL_ADDRESS": temporal_address,
    }
    command = [sys.executable, "-m", "cli.main", "up"]
    with subprocess.Popen(command, env=outside.environment, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        said = list(iter(up.stdout.readline, "Mercato is ready\n"))
        assert any(line.startswith("api       | ") for line in said)
        assert is_ready(outside)
        assert {one["name"] for one in outside.running["programs"]} == {"processor", "api", "worker"}
        up.send_signal(signal.SIGINT)
        up.send_signal(signal.SIGINT)  # `make` and the terminal may both pass it on
        assert within(5, lambda: not is_open(outside.port))
        up.stdout.read()
        assert up.wait(timeout=20) == 0


def test_an_unfit_setting_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "up"],
        env=inherited_environment() | {"MERCATO_PORT": "many"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "MERCATO_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "cli.main", "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    for command in ("up", "down", "status", "serve", "worker", "seed", "migrate", "processor", "demo", "orders"):
        assert f" {command} " in done.stdout


def test_settings_hold_the_ports_of_the_contract() -> None:
    settings = Settings()
    assert (settings.port, settings.processor_port) == (8080, 5010)
    assert (settings.temporal_port, settings.temporal_ui_port) == (7233, 8233)
