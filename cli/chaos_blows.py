"""Carries out the blows of a plan on a platform of one's own, and ends all of them."""

import asyncio
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli import servers
from cli.chaos_plan import Blow
from cli.platform import Platform
from core.faults import Fault, FaultFile
from core.temporal import TemporalConnector
from models.errors import Unavailable

OURS = "WorkflowType IN ('CheckoutWorkflow', 'FulfilmentWorkflow')"
RPC = timedelta(seconds=3)
RECENT = 200  # workflows to choose one to reset from


@dataclass(frozen=True)
class Struck:
    """A blow as it went: how many wishes were under way then, and why nothing came of it, if nothing did."""

    blow: Blow
    at: float
    in_flight: int
    missed: str = ""


class Saboteur:
    """One run's blows. `in_flight` is asked at each."""

    def __init__(self, platform: Platform, in_flight: Callable[[], int]) -> None:
        settings = platform.settings
        assert settings.present_faults_file is not None
        self.struck: list[Struck] = []
        self._platform = platform
        self._in_flight = in_flight
        self._file = FaultFile(settings.present_faults_file)
        self._temporal = TemporalConnector(settings)
        self._processor = httpx.AsyncClient(base_url=settings.processor_url, timeout=3, trust_env=False)
        self._modes: list[dict[str, Any]] = []  # armed at the processor
        self._held: set[subprocess.Popen[bytes]] = set()
        self._numbers = 0

    async def run(self, blows: tuple[Blow, ...], told: Callable[[Struck], None]) -> None:
        """All of them, each at its time; returns when the last has passed."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as lasting:
            for blow in blows:
                await asyncio.sleep(max(0.0, begun + blow.at - time.monotonic()))
                lasting.create_task(self._strike(blow, begun, told))

    def undo(self) -> None:
        """Nothing is held still and nothing is armed at our steps any more. The guards let go by themselves, too."""
        for held in self._held:
            if held.stdin:
                held.stdin.close()
        self._file.remove()

    async def disarm(self) -> None:
        """The processor, which must be up, does as it should again. Raises HTTPError."""
        self._modes.clear()
        await self._arm()
        await self._processor.aclose()
        await self._temporal.close()

    async def _strike(self, blow: Blow, begun: float, told: Callable[[Struck], None]) -> None:
        in_flight, missed = self._in_flight(), ""
        at = time.monotonic() - begun
        lasting = None
        try:
            lasting = await self._begin(blow)
        except (servers.NotThere, Unavailable, RPCError, httpx.HTTPError, OSError) as error:
            missed = str(error).partition("\n")[0] or type(error).__name__
        struck = Struck(blow, at, in_flight, missed)
        self.struck.append(struck)
        told(struck)
        if lasting:
            await lasting

    async def _begin(self, blow: Blow) -> "asyncio.Future[None] | None":
        """What goes on until the blow has passed, if it lasts.

        Raises:
            NotThere, Unavailable, RPCError, HTTPError: nothing came of it.
        """
        if blow.kind == "kill":
            servers.kill(self._pid(blow.target))
        elif blow.kind == "pause":
            return await self._hold(servers.paused(self._pid(blow.target), blow.seconds))
        elif blow.kind == "off":
            address = urlsplit(self._platform.settings.redis_url)
            return await self._hold(servers.deaf(address.hostname or "", address.port or 0, blow.seconds))
        elif blow.kind == "step":
            self._numbers += 1
            self._file.add(Fault(id=f"c{self._numbers}", **blow.given))
        elif blow.kind == "processor":
            return await self._mode(blow.given, blow.seconds)
        elif blow.kind == "terminate":
            await self._terminate(blow.given["pick"])
        else:
            await self._reset(blow.given["pick"])
        return None

    def _pid(self, name: str) -> int:
        supervised = self._platform.programs[name]
        if supervised.state != "ready" or supervised.process.pid is None:
            raise servers.NotThere(f"{name} was {supervised.state} just then")
        return supervised.process.pid

    async def _hold(self, holding: AbstractContextManager[subprocess.Popen[bytes]]) -> "asyncio.Future[None]":
        held = await asyncio.to_thread(holding.__enter__)
        self._held.add(held)

        def until_over() -> None:
            held.wait()
            holding.__exit__(None, None, None)
            self._held.discard(held)

        return asyncio.ensure_future(asyncio.to_thread(until_over))

    async def _mode(self, mode: dict[str, Any], seconds: float) -> "asyncio.Future[None]":
        self._modes.append(mode)
        try:
            await self._arm()
        except httpx.HTTPStatusError:
            self._modes.remove(mode)
            await self._arm()
            raise servers.NotThere(f"this processor does not know {mode['mode']}") from None
        except httpx.HTTPError:
            self._modes.remove(mode)
            raise

        async def disarm() -> None:
            await asyncio.sleep(seconds)
            if mode in self._modes:
                self._modes.remove(mode)
            with suppress(httpx.HTTPError):  # a processor that is down has forgotten it anyway
                await self._arm()

        return asyncio.ensure_future(disarm())

    async def _arm(self) -> None:
        (await self._processor.delete("/test/faults")).raise_for_status()
        if self._modes:
            (await self._processor.put("/test/faults", json=self._modes)).raise_for_status()

    async def _terminate(self, pick: float) -> None:
        client = await self._temporal.client()
        found = await _workflows(client, f"{OURS} AND ExecutionStatus = 'Running'")
        workflow_id, _ = _picked(found, pick)
        await client.get_workflow_handle(workflow_id).terminate("chaos", rpc_timeout=RPC)

    async def _reset(self, pick: float) -> None:
        """To its first workflow task, as somebody who wants it tried again from the start."""
        client = await self._temporal.client()
        workflow_id, run_id = _picked(await _workflows(client, OURS), pick)
        events = client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events()
        async for event in events:
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                await client.workflow_service.reset_workflow_execution(
                    ResetWorkflowExecutionRequest(
                        namespace=client.namespace,
                        workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                        reason="chaos",
                        workflow_task_finish_event_id=event.event_id,
                        request_id=uuid4().hex,
                    ),
                    timeout=RPC,
                )
                return


async def _workflows(client: Client, query: str) -> list[tuple[str, str]]:
    """(id, run id) of the newest."""
    return [(run.id, run.run_id) async for run in client.list_workflows(query, limit=RECENT, rpc_timeout=RPC)]


def _picked(found: list[tuple[str, str]], pick: float) -> tuple[str, str]:
    if not found:
        raise servers.NotThere("no workflow ran just then")
    return sorted(found)[int(pick * len(found))]
