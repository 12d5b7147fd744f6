"""Work that goes on beside requests, and how it ends."""

import asyncio
from typing import Any

AGAIN_SECONDS = 1.0


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have ended.

    A cancel that arrives in the moment in which what is waited for comes about may be swallowed on the way
    (`asyncio.wait_for` did so before Python 3.12). Such a task goes on as if nothing had been said, so it
    is told again.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
