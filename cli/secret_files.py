"""Secrets that are made once, at the first start, and stay in the data folder (mode 0600)."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The content of `path`; made and written first where it is missing. Two processes agree on one secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        half = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        with suppress(FileExistsError):
            os.link(half, path)  # unlike a rename, loses against a secret that is there already
        half.unlink()
    return path.read_text().strip()


def owner_password(data_dir: Path) -> Path:
    """The file with the database owner's password."""
    path = data_dir / "postgres.password"
    kept_secret(path, lambda: secrets.token_urlsafe(24))
    return path
