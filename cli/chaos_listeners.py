"""Listeners of a chaos run: streams that are opened again whenever they break, and must never skip or repeat an id."""

import asyncio
from contextlib import suppress

from cli.api_client import ApiClient, ApiFailure
from cli.chaos_shoppers import Person
from cli.listener import ALL_MY_ORDERS

BETWEEN_TRIES = 0.5
SILENCE = 10.0  # seconds without a heartbeat: the connection is dead, however open it looks


class ChaosListener:
    """All events of one person. `gaps` is what must never happen; a repeat after a reconnect is one too: ids are asked
    for from the last one that came."""

    def __init__(self, url: str, person: Person) -> None:
        self.person = person
        self.email = person.email
        self.last = 0
        self.reconnects = 0
        self.gaps: list[str] = []
        self._url = url

    async def run(self) -> None:
        """For ever: cancel it."""
        async with ApiClient(self._url) as api:
            api.sign_in(self.person.token)
            while True:
                with suppress(ApiFailure):
                    async with api.events(ALL_MY_ORDERS, self.last, silence=SILENCE) as events:
                        async for event in events:
                            self._take(event.seq, event.type)
                self.reconnects += 1
                await asyncio.sleep(BETWEEN_TRIES)

    def _take(self, seq: int | None, kind: str) -> None:
        if kind == "resync":
            self.gaps.append(f"{self.email}: the server does not know event {self.last}, which it sent")
        if seq is None:
            return
        if seq != self.last + 1:
            self.gaps.append(f"{self.email}: {kind} with id {seq} after id {self.last}")
        self.last = seq
