"""The platform's HTTP contract as the commands use it: sign in, call, listen to a stream of events."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx

SECONDS = 20.0


class ApiFailure(Exception):
    """A call did not answer as it should. The message is meant for people."""


@dataclass(frozen=True)
class StreamEvent:
    """One server-sent event; `seq` None for those without an id (snapshot, resync)."""

    seq: int | None
    type: str
    data: dict[str, Any]


class ApiClient:
    """Speaks to one platform; knows the access token after `login`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, timeout=SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def login(self, email: str, password: str) -> dict[str, Any]:
        """Sign in for the calls that follow."""
        tokens: dict[str, Any] = await self.get_json(
            "POST", "/api/auth/login", json={"email": email, "password": password}
        )
        self.sign_in(tokens["accessToken"])
        return tokens

    def sign_in(self, access_token: str) -> None:
        """Somebody has it already."""
        self._http.headers["Authorization"] = f"Bearer {access_token}"

    async def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer, whatever its status.

        Raises:
            ApiFailure: nobody answers there.
        """
        try:
            return await self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise ApiFailure(_unreachable(self.url, error)) from error

    async def get_json(self, method: str, path: str, *, expected: Sequence[int] = (200, 201), **request: Any) -> Any:
        """The answer's body.

        Raises:
            ApiFailure: nobody answers, or with another status than `expected`.
        """
        response = await self.call(method, path, **request)
        if response.status_code not in expected:
            raise ApiFailure(f"{method} {path} answered {describe(response)}")
        return response.json()

    @asynccontextmanager
    async def events(
        self, path: str, last_event_id: int | None = None, *, silence: float | None = None
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        """The events of a stream, until it ends or nothing comes for `silence` seconds.

        Raises:
            ApiFailure: it cannot be opened, or breaks.
        """
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        timeout = httpx.Timeout(SECONDS, read=silence)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code not in (200, 204):
                    await response.aread()
                    raise ApiFailure(f"GET {path} answered {describe(response)}")
                yield _parsed(response)
        except httpx.TransportError as error:
            raise ApiFailure(_unreachable(self.url, error)) from error


async def _parsed(response: httpx.Response) -> AsyncIterator[StreamEvent]:
    fields: dict[str, str] = {}
    try:
        async for line in response.aiter_lines():
            name, _, value = line.partition(":")
            if line and name:
                fields[name] = value.removeprefix(" ")
            elif not line and "data" in fields:
                seq = int(fields["id"]) if "id" in fields else None
                yield StreamEvent(seq, fields.get("event", "message"), json.loads(fields["data"]))
            if not line:
                fields = {}
    except httpx.ReadTimeout:
        return


def describe(response: httpx.Response) -> str:
    """Status, code, sentence and fields of a problem document, or the status alone."""
    try:
        problem = response.json()
    except ValueError:
        return str(response.status_code)
    words = f"{response.status_code} {problem.get('code', '')}: {problem.get('detail') or problem.get('title', '')}"
    words += "".join(f" {error['field']}: {error['message']}." for error in problem.get("errors", ()))
    if wait := response.headers.get("Retry-After"):
        words += f" (try again in {wait} s)"
    return words


def _unreachable(url: str, error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"Nothing answers at {url}. Is Mercato running? `mercato up` starts it."
    return f"{url} did not answer: {error or type(error).__name__}"
