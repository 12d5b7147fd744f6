"""Runs the command line as people do: another process, with an environment of its own."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping

from tests.stack import inherited_environment


async def mercato(
    *arguments: str, env: Mapping[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command, ended. `env` is on top of this process's environment without any setting of ours; `typed` is its
    standard input."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli.main", *arguments],
        env={**inherited_environment(), **(env or {})},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
