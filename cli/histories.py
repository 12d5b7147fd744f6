"""Workflow histories: from files, from the server, and into files."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from google.protobuf.json_format import ParseError
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

FORMS = "`temporal workflow show -o json`, or the UI's download named Encoded"


class UnreadableHistory(Exception):
    """It is no history that can be replayed. The message is meant for people."""


@dataclass(frozen=True)
class Case:
    """One history to be replayed; `load` reads it when its turn comes and raises UnreadableHistory."""

    name: str
    load: Callable[[], Awaitable[WorkflowHistory]]


def file_case(path: Path) -> Case:
    async def load() -> WorkflowHistory:
        return read(path)

    return Case(str(path), load)


def read(path: Path) -> WorkflowHistory:
    """The history in a JSON file, with or without a `{"history": …}` around it.

    Raises:
        UnreadableHistory: there is none in it.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UnreadableHistory(error.strerror or str(error)) from error
    except ValueError as error:
        raise UnreadableHistory(f"this is no JSON: {error}") from error
    return _parsed(content, path.stem)


def _parsed(content: Any, fallback_id: str) -> WorkflowHistory:
    if isinstance(content, dict) and isinstance(content.get("history"), dict):
        content = content["history"]
    if isinstance(content, list):
        content = {"events": content}
    if not isinstance(content, dict) or not isinstance(content.get("events"), list) or not content["events"]:
        raise UnreadableHistory(f"no events in it; what can be replayed comes from {FORMS}")
    try:
        history = WorkflowHistory.from_json(fallback_id, content)
    except (ParseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableHistory(f"not the events of a workflow ({error}); take {FORMS}") from error
    if history.events[0].event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
        raise UnreadableHistory("its first event is not the start of a workflow: only whole histories can be replayed")
    workflow_id = history.events[0].workflow_execution_started_event_attributes.workflow_id
    return WorkflowHistory(workflow_id or fallback_id, history.events)


def run_id_of(history: WorkflowHistory) -> str:
    """The run that this is the history of."""
    return history.events[0].workflow_execution_started_event_attributes.original_execution_run_id


def write(history: WorkflowHistory, directory: Path) -> Path:
    """Save as JSON: the same history is always the same bytes, one line a field, so that versions can be compared."""
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{history.workflow_id}.{run_id_of(history)}".rstrip("."))
    path = directory / f"{name}.json"
    path.write_text(json.dumps(history.to_json_dict(), indent=1, sort_keys=True) + "\n")
    return path


async def of_target(client: Client, target: str) -> list[Case]:
    """Every run of an order's checkout and repair, or of the workflow that `target` names."""
    workflow_ids = [f"checkout-{target}", f"repair-{target}"] if _is_uuid(target) else [target]
    cases: dict[str, Case] = {}
    for workflow_id in workflow_ids:
        latest = await _latest_run(client, workflow_id)
        if latest:
            cases[latest] = _run_case(client, workflow_id, latest)
            quoted = workflow_id.replace("\\", "\\\\").replace("'", "\\'")
            async for case, run_id in _listed(client, f"WorkflowId = '{quoted}'", None):
                cases.setdefault(run_id, case)
    return list(cases.values())


async def of_query(client: Client, query: str, limit: int | None) -> list[Case]:
    """The newest `limit` runs that the server lists for `query`."""
    return [case async for case, _ in _listed(client, query, limit)]


async def _latest_run(client: Client, workflow_id: str) -> str | None:
    """Asked of the workflow itself: the list may be a moment late."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).run_id
    except RPCError as error:
        if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            return None
        raise


async def _listed(client: Client, query: str, limit: int | None) -> AsyncIterator[tuple[Case, str]]:
    async for run in client.list_workflows(query, limit=limit):
        yield _run_case(client, run.id, run.run_id), run.run_id


def _run_case(client: Client, workflow_id: str, run_id: str) -> Case:
    async def load() -> WorkflowHistory:
        try:
            return await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        except RPCError as error:
            raise UnreadableHistory(f"the server does not give it: {error}") from error

    return Case(f"{workflow_id} (run {run_id})", load)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def files(paths: Sequence[Path], directories: Sequence[Path]) -> list[Case]:
    """The files, and every `*.json` below the directories.

    Raises:
        UnreadableHistory: there is no such directory.
    """
    found = list(paths)
    for directory in directories:
        if not directory.is_dir():
            raise UnreadableHistory(f"{directory} is no directory")
        found += sorted(directory.rglob("*.json"))
    return [file_case(path) for path in found]
