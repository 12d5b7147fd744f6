"""What is known about a running `mercato up`: a lock that only the living hold, a file that says what runs where."""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from core.settings import Settings


class Unreachable(Exception):
    """An outside server that the settings name does not answer. The message is meant for people."""


@dataclass
class Running:
    """Content of `up.json` (mode 0600: addresses carry passwords)."""

    pid: int
    state: str  # starting, ready, stopping
    addresses: dict[str, str] = field(default_factory=dict)  # for people
    settings: dict[str, str] = field(default_factory=dict)  # for the other commands
    programs: list[dict[str, str | int | None]] = field(default_factory=list)

    def write(self, data_dir: Path) -> None:
        path = data_dir / "up.json"
        half = path.with_suffix(".new")
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file, indent=2)
        half.rename(path)

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """What the last `mercato up` wrote, whether it lives or not."""
        try:
            return cls(**json.loads((data_dir / "up.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


class Lock:
    """Held for as long as the process lives, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def take(self) -> bool:
        """Whether it was free, and is ours now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def free(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


def running(data_dir: Path) -> Running | None:
    """The `mercato up` that lives in `data_dir`, if one does."""
    if not (data_dir / "up.lock").exists():
        return None
    lock = Lock(data_dir)
    try:
        return None if lock.take() else Running.read(data_dir) or Running(pid=0, state="starting")
    finally:
        lock.free()


def present_settings() -> Settings:
    """The settings of this process; what the environment leaves open is taken from the `mercato up` that runs here."""
    settings = Settings()
    present = running(settings.data_dir)
    if present is None:
        return settings
    left_open = {name: value for name, value in present.settings.items() if name not in settings.model_fields_set}
    return Settings.model_validate(
        {**{name: getattr(settings, name) for name in settings.model_fields_set}, **left_open}
    )
