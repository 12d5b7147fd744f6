"""Replays histories against workflow code, several at a time, and tells where they differ. No activity is run."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.worker import Replayer, WorkflowReplayResult
from temporalio.workflow import NondeterminismError

from cli.histories import Case, UnreadableHistory, run_id_of
from core.settings import Settings
from core.telemetry import configure_telemetry
from core.temporal import DATA_CONVERTER

REPLAY_SECONDS = 30.0
MOST_LOCATED = 20  # finding the place costs a few more replays each

Outcome = Literal["replays", "differs", "fails", "stuck", "unreadable"]


@dataclass
class Replayed:
    """What came of one history. `event_id`: the workflow task completed there is the first that differs."""

    name: str
    outcome: Outcome
    problem: str = ""
    event_id: int | None = None
    workflow_id: str = ""
    run_id: str = ""
    events: int = 0


Tell = Callable[[Replayed, WorkflowHistory | None], None]


class Stuck(Exception):
    """The history did not replay in time. `closing` ends when it has after all, which may be never."""

    def __init__(self, closing: asyncio.Task[None]) -> None:
        super().__init__()
        self.closing = closing


class Lane:
    """One replaying worker, fed with one history after another."""

    def __init__(self, replayer: Replayer) -> None:
        self._waiting: asyncio.Queue[WorkflowHistory | None] = asyncio.Queue()
        self._replayer = replayer
        self._stack = AsyncExitStack()
        self._results: AsyncIterator[WorkflowReplayResult] | None = None

    async def replay(self, history: WorkflowHistory, seconds: float) -> Exception | None:
        """What went wrong, None if nothing did.

        Raises:
            Stuck: no end after `seconds`; the lane is of no use any more, and closes when the history is done.
        """
        if self._results is None:
            context = self._replayer.workflow_replay_iterator(self._fed())
            self._results = await self._stack.enter_async_context(context)
        self._waiting.put_nowait(history)
        task = asyncio.ensure_future(_next(self._results))
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise Stuck(asyncio.create_task(self._close_after(task)))
        return task.result().replay_failure

    async def close(self) -> None:
        if self._results is not None:
            self._waiting.put_nowait(None)
            async for _ in self._results:
                pass
        await self._stack.aclose()

    async def _close_after(self, task: asyncio.Future[WorkflowReplayResult]) -> None:
        await asyncio.wait({task})
        await self.close()

    async def _fed(self) -> AsyncIterator[WorkflowHistory]:
        while (history := await self._waiting.get()) is not None:
            yield history


@contextmanager
def _hushed() -> Iterator[None]:
    """What Temporal would say of a history is in our report."""
    temporal = logging.getLogger("temporalio")
    before = temporal.level
    temporal.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        temporal.setLevel(before)


class ReplayRun:
    """Replays cases against `workflows` in as many lanes as there are processors."""

    def __init__(self, workflows: Sequence[type], *, seconds: float = REPLAY_SECONDS, lanes: int | None = None) -> None:
        # Temporal's plugin wants this provider; nothing is exported, a replay is no traffic.
        configure_telemetry(Settings(otlp_endpoint=""), "replay")
        quiet = LoggingConfig(filter=TelemetryFilter(core_level="OFF", other_level="OFF"))
        self._replayer = Replayer(
            workflows=workflows,
            data_converter=DATA_CONVERTER,
            plugins=[OpenTelemetryPlugin(add_temporal_spans=False)],
            runtime=Runtime(telemetry=TelemetryConfig(logging=quiet)),
        )
        self._seconds = seconds
        self._lanes = lanes or min(os.cpu_count() or 2, 8)
        self._located = 0
        self.abandoned: list[asyncio.Task[None]] = []  # lanes with a history that is stuck

    async def replay(self, cases: Sequence[Case], tell: Tell) -> list[Replayed]:
        """Replay all; `tell` hears of each as it is done, with its history if it has one. In the order of `cases`."""
        waiting = iter(enumerate(cases))
        results: dict[int, Replayed] = {}

        async def work() -> None:
            lane = Lane(self._replayer)
            for position, case in waiting:
                results[position] = await self._replay_one(lane, case, tell)
                if results[position].outcome == "stuck":
                    lane = Lane(self._replayer)
            await lane.close()

        with _hushed():
            await asyncio.gather(*(work() for _ in range(min(self._lanes, len(cases)))))
        return [results[position] for position in sorted(results)]

    async def _replay_one(self, lane: Lane, case: Case, tell: Tell) -> Replayed:
        try:
            history = await case.load()
        except UnreadableHistory as error:
            result = Replayed(case.name, "unreadable", str(error))
            tell(result, None)
            return result
        outcome, problem, event_id = await self._outcome(lane, history)
        result = Replayed(
            case.name, outcome, problem, event_id, history.workflow_id, run_id_of(history), len(history.events)
        )
        tell(result, history)
        return result

    async def _outcome(self, lane: Lane, history: WorkflowHistory) -> tuple[Outcome, str, int | None]:
        try:
            failure = await lane.replay(history, self._seconds)
        except Stuck as stuck:
            self.abandoned.append(stuck.closing)
            return "stuck", f"not replayed after {self._seconds:g} s", None
        if failure is None:
            return "replays", "", None
        if not isinstance(failure, NondeterminismError):
            return "fails", _words_of(failure), None
        event_id = None
        if self._located < MOST_LOCATED:
            self._located += 1
            event_id = await self._first_difference(history)
        return "differs", _words_of(failure), event_id

    async def _first_difference(self, history: WorkflowHistory) -> int | None:
        """The completed workflow task whose commands are the first that the code would not give.

        Found by halving: what replays up to one task and not up to the next differs in the next.
        """
        events = history.events
        tasks = [
            i for i, event in enumerate(events) if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        ]
        lane = Lane(self._replayer)
        low, high = 0, len(tasks) - 1
        try:
            while low < high:
                middle = (low + high) // 2
                end = _end_of_commands(history, tasks[middle])
                if await lane.replay(WorkflowHistory(history.workflow_id, events[:end]), self._seconds) is None:
                    low = middle + 1
                else:
                    high = middle
        except Stuck as stuck:
            self.abandoned.append(stuck.closing)
            return None
        await lane.close()
        return events[tasks[low]].event_id if tasks else None


def _end_of_commands(history: WorkflowHistory, task: int) -> int:
    """Up to where a history can be cut behind the workflow task completed at index `task`."""
    scheduled = EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED
    following = (i for i in range(task + 1, len(history.events)) if history.events[i].event_type == scheduled)
    return next(following, len(history.events))


def _words_of(failure: Exception) -> str:
    """Temporal's sentence, without the dump of the message that carried it."""
    text = str(failure)
    found = re.search(r'message: "((?:[^"\\]|\\.)*)"', text)
    return found[1].replace('\\"', '"') if found else text


async def _next(results: AsyncIterator[WorkflowReplayResult]) -> WorkflowReplayResult:
    return await anext(results)
