"""Ports that must be free before anything is started, and words for when they are not."""

import os
import socket
from contextlib import suppress
from pathlib import Path


def taken(host: str, ports: dict[str, int]) -> list[str]:
    """A sentence for each port that is in use. `ports` is by the name of the setting that moves it."""
    sentences = []
    for setting, port in ports.items():
        if _is_free(host, port):
            continue
        holder = _holder(port)
        by = f" by {holder}" if holder else ""
        sentences.append(f"Port {port} is taken{by}. Stop that program, or choose another port with {setting}.")
    return sentences


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str | None:
    """Name and pid of the listener, where /proc tells us."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for folder in Path("/proc").glob("[0-9]*/fd") if inodes else ():
        with suppress(OSError):
            if any(os.readlink(entry) in inodes for entry in folder.iterdir()):
                name = (folder.parent / "comm").read_text().strip()
                return f"{name} (process {folder.parent.name})"
    return None


def _listening_inodes(port: int) -> list[str]:
    inodes = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.append(columns[9])
    return inodes
