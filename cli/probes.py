"""Readiness gates: small questions that the supervisor asks a program until the answer is yes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

Probe = Callable[[], Awaitable[bool]]


def tcp(host: str, port: int) -> Probe:
    """Yes when the port accepts a connection."""

    async def ask() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    return ask


def http(host: str, port: int, path: str) -> Probe:
    """Yes when `GET path` answers 200. Written by hand: an HTTP library would cost more start-up time."""

    async def ask() -> bool:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
            status_line = await asyncio.wait_for(reader.readline(), timeout=5)
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
        return status_line.split()[1:2] == [b"200"]

    return ask


def command(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Probe:
    """Yes when the command ends with 0 within ten seconds."""

    async def ask() -> bool:
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*argv, stdin=quiet, stdout=quiet, stderr=quiet, env=environment)
        try:
            return await asyncio.wait_for(process.wait(), timeout=10) == 0
        except TimeoutError:
            return False
        finally:
            with suppress(ProcessLookupError):
                if process.returncode is None:
                    process.kill()

    return ask
