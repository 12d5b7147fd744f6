"""Faults on demand: by request header, by admin call, or by rate. They live in memory and end with the process.

    mode                stage    what happens
    latency             before   waits `seconds`, then goes on as usual
    silent              before   accepts, never answers for `seconds`, then drops the connection; no effect
    drop                before   drops the connection at once; no effect
    error_500/502/503   before   answers 5xx; no effect, not stored (error_500 with `stored`: as error_500_stored)
    error_429           before   answers 429; no effect, not stored
    latency_in_flight   begun    waits `seconds` while the idempotency key is held: a repeat meets 409
    error_500_stored    begun    no effect; the 500 is stored under the key
    error_500_after     reply    the effect is committed, and a 500 is stored as its reply
    reply_lost          after    the effect and its reply are committed, then the connection is dropped
    latency_after       after    the effect and its reply are committed, then waits `seconds` before answering
    success_twice       twin     a confirm holds the money, and so does a second intent that nobody asked for
    wrong_amount        amount   says a cent more than the intent is about; the effect is as asked for
    webhook_lost        webhook  an event is never delivered
    webhook_late        webhook  ... `seconds` later than it would be, and so after events that follow it
    webhook_duplicate   webhook  ... twice, with signatures of their own
    webhook_bad_signature        ... first with a wrong signature, and later as it should be

Faults of the stages `reply` and `after` never touch a replay, and unless `operations` says otherwise only writes.
"""

import json
import random
from dataclasses import asdict, dataclass, field
from typing import Any

from processor.errors import invalid_request

STAGES = {
    "latency": "before",
    "silent": "before",
    "drop": "before",
    "error_500": "before",
    "error_502": "before",
    "error_503": "before",
    "error_429": "before",
    "latency_in_flight": "begun",
    "error_500_stored": "begun",
    "error_500_after": "reply",
    "reply_lost": "after",
    "latency_after": "after",
    "success_twice": "twin",
    "wrong_amount": "amount",
    "webhook_lost": "webhook",
    "webhook_late": "webhook",
    "webhook_duplicate": "webhook",
    "webhook_bad_signature": "webhook",
}
LONGEST = 3600.0  # seconds: half an hour of silence must be playable
WRITES = ("create", "update", "confirm", "capture", "cancel", "refund")
OPERATIONS = (*WRITES, "retrieve", "list", "search")
FIELDS = ("mode", "seconds", "rate", "times", "operations", "stored", "order_id", "metadata", "account")


@dataclass
class Fault:
    """`times` counts down (None: without end); `metadata` must all be found on the intent that is asked for."""

    mode: str
    seconds: float = 1.0
    rate: float = 1.0
    times: int | None = None
    operations: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    account: str | None = None

    @property
    def stage(self) -> str:
        return STAGES[self.mode]

    def concerns(self, operation: str) -> bool:
        """Whether it may fire for `operation` at all."""
        if self.stage == "webhook":
            return operation == "webhook"
        if self.operations:
            return operation in self.operations
        return self.stage in ("before", "begun") or operation in WRITES

    @property
    def scope(self) -> tuple[str | None, tuple[tuple[str, str], ...]]:
        """Faults of one scope replace each other; those of other scopes stay untouched."""
        return self.account, tuple(sorted(self.metadata.items()))


class Faults:
    """The faults that are armed in this process."""

    def __init__(self, armed: list[Fault] | None = None) -> None:
        self._armed = list(armed or [])

    def replace(self, faults: list[Fault]) -> None:
        """Arm `faults` in place of what their scopes had."""
        scopes = {fault.scope for fault in faults}
        self._armed = [fault for fault in self._armed if fault.scope not in scopes] + faults

    def clear(self, account: str | None, metadata: dict[str, str]) -> None:
        """Disarm those of `account` (None: of everybody) whose scope holds `metadata`."""
        self._armed = [
            fault
            for fault in self._armed
            if (account is not None and fault.account != account) or not metadata.items() <= fault.metadata.items()
        ]

    def listed(self, account: str | None) -> list[dict[str, Any]]:
        """What is armed, as JSON."""
        return [asdict(fault) for fault in self._armed if account is None or fault.account == account]

    @property
    def reads_metadata(self) -> bool:
        """Whether any armed fault must know the metadata of the intent."""
        return any(fault.metadata for fault in self._armed)

    def take(self, stage: str, operation: str, account: str, metadata: dict[str, str]) -> Fault | None:
        """The first armed fault that fires now, counted down."""
        for fault in self._armed:
            if (
                fault.stage == stage
                and fault.concerns(operation)
                and fault.account in (None, account)
                and fault.metadata.items() <= metadata.items()
                and random.random() < fault.rate
            ):
                self._count(fault)
                return fault
        return None

    def _count(self, fault: Fault) -> None:
        if fault.times is None:
            return
        fault.times -= 1
        if fault.times <= 0:
            self._armed.remove(fault)


def faults_from_json(text: str, account: str | None = None) -> list[Fault]:
    """One fault object or an array of them. Raises StripeError 400 that names what is wrong."""
    try:
        given = json.loads(text)
    except ValueError:
        raise invalid_request("A fault is a JSON object, or an array of them.") from None
    return [_fault(item, account) for item in (given if isinstance(given, list) else [given])]


def fault_from_header(value: str) -> Fault:
    """`mode` or `mode; seconds=2`, for this one request. Raises StripeError 400."""
    mode, *settings = (part.strip() for part in value.split(";"))
    given: dict[str, Any] = {"mode": mode}
    for setting in settings:
        name, _, number = setting.partition("=")
        try:
            given[name.strip()] = float(number)
        except ValueError:
            raise invalid_request(f"Invalid X-Mock-Fault: {value}") from None
    return _fault(given, None)


def _fault(given: Any, account: str | None) -> Fault:
    if not isinstance(given, dict):
        raise invalid_request("A fault is a JSON object, or an array of them.")
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise invalid_request(f"Unknown fault settings: {', '.join(unknown)}", param=unknown[0])
    mode = given.get("mode")
    if mode == "error_500" and given.get("stored"):
        mode = "error_500_stored"
    if mode not in STAGES:
        raise invalid_request(f"Unknown fault mode: {mode}; known are {', '.join(STAGES)}", param="mode")
    operations = given.get("operations") or []
    if not isinstance(operations, list) or not set(operations) <= set(OPERATIONS):
        raise invalid_request(f"operations is an array of {', '.join(OPERATIONS)}", param="operations")
    times = given.get("times")
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise invalid_request("times is a whole number from 1, or null", param="times")
    return Fault(
        mode=mode,
        seconds=_number(given, "seconds", LONGEST),
        rate=_number(given, "rate", 1.0),
        times=times,
        operations=tuple(operations),
        metadata=_metadata(given),
        account=account,
    )


def _number(given: dict[str, Any], name: str, most: float) -> float:
    value = given.get(name)
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise invalid_request(f"{name} is a number from 0 to {most:g}", param=name)
    return float(value)


def _metadata(given: dict[str, Any]) -> dict[str, str]:
    metadata = given.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise invalid_request("metadata is an object of strings", param="metadata")
    if given.get("order_id"):
        return {**metadata, "order_id": str(given["order_id"])}
    return metadata
