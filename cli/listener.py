"""Listens to a shopper's events in the background and lets the foreground wait for them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from cli.api_client import ApiClient, ApiFailure, StreamEvent

ALL_MY_ORDERS = "/api/orders/events"

Heard = Callable[[StreamEvent, float], None]


class Listener:
    """The stream of all my orders. `heard` is told each event and its delay in seconds, by this machine's clock."""

    def __init__(self, api: ApiClient, heard: Heard) -> None:
        self._api = api
        self._heard = heard
        self._events: list[StreamEvent] = []
        self._news = asyncio.Condition()
        self._opened = asyncio.Event()
        self._failure: ApiFailure | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Return when the stream is open: nothing that happens from now on is missed."""
        self._task = asyncio.create_task(self._listen())
        opened = asyncio.create_task(self._opened.wait())
        await asyncio.wait({self._task, opened}, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if self._failure:
            raise self._failure
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def wait_for(self, order_id: str, types: set[str], seconds: float) -> StreamEvent:
        """The first event of the order that is one of `types`, whether it came already or comes within `seconds`.

        Raises:
            ApiFailure: it does not come, or the stream breaks.
        """

        def found() -> StreamEvent | None:
            matching = (one for one in self._events if one.type in types and one.data["orderId"] == order_id)
            return next(matching, None)

        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: found() or self._failure)
        except TimeoutError:
            raise ApiFailure(f"No {' or '.join(sorted(types))} within {seconds:g} s") from None
        event = found()
        if event is None:
            raise self._failure or ApiFailure("The stream of events has ended.")
        return event

    async def _listen(self) -> None:
        try:
            async with self._api.events(ALL_MY_ORDERS) as events:
                async for event in events:
                    await self._take(event)
            raise ApiFailure("The stream of events has ended.")
        except ApiFailure as failure:
            async with self._news:
                self._failure = failure
                self._news.notify_all()

    async def _take(self, event: StreamEvent) -> None:
        if event.seq is None:
            self._opened.set()
            return
        delay = (datetime.now(UTC) - datetime.fromisoformat(event.data["at"])).total_seconds()
        self._heard(event, delay)
        async with self._news:
            self._events.append(event)
            self._news.notify_all()
