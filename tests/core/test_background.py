"""Work beside requests ends when it is told to, even if a library has not listened."""

import asyncio

from core.background import end


async def test_a_task_that_swallows_a_cancel_is_told_again(monkeypatch) -> None:
    monkeypatch.setattr("core.background.AGAIN_SECONDS", 0.01)
    swallowed = 0
    begun = asyncio.Event()

    async def work() -> None:
        nonlocal swallowed
        while True:
            try:
                begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(work())
    await begun.wait()
    async with asyncio.timeout(5):
        await end(task)
    assert task.cancelled()
    assert swallowed == 3


async def test_ending_nothing_is_no_work() -> None:
    await end()
