"""A small cache in the process: an answer is kept for a moment, and made once however many ask for it."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class BriefCache(Generic[T]):
    """Keeps up to `size` answers, each for `seconds` from when it was begun to be made. Failures are not kept."""

    def __init__(self, seconds: float, size: int = 512) -> None:
        self._seconds = seconds
        self._size = size
        self._entries: dict[Hashable, tuple[float, asyncio.Task[T]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer for `key`, from `make()` if none is fresh; raises what `make` raises."""
        now = time.monotonic()
        kept = self._entries.get(key)
        if kept is None or kept[0] <= now or _failed(kept[1]):
            kept = (now + self._seconds, asyncio.create_task(make()))
            self._entries.pop(key, None)  # so that the order of the dict stays the order of age
            self._entries[key] = kept
            self._forget_oldest()
        # One caller that goes away must not take the answer from the others.
        return await asyncio.shield(kept[1])

    def _forget_oldest(self) -> None:
        while len(self._entries) > self._size:
            del self._entries[next(iter(self._entries))]


def _failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
