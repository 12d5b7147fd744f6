"""Runs what the containers run beside our programs, with the programs that the embedded servers brought along."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from cli import embedded
from tests.deploy.compose import ROOT

DOCKER = ROOT / "deploy/docker"


async def run_script(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script of deploy/docker, ended."""
    postgres = embedded.postgres_home() / "bin"
    return await asyncio.to_thread(
        subprocess.run,
        [DOCKER / script, *arguments],
        env={"PATH": f"{Path(sys.executable).parent}:{postgres}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
