"""Gives again what a route has just answered, to whoever asks for the same path and query within its moment."""

import time
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.etags import Rendered, full, names, respond, unchanged

KEPT = "mercato.kept_answer"  # in the scope: what the route lets be given again
MOST_ANSWERS = 512
LONGEST_QUERY = 512  # bytes: strangers choose the queries, and could fill the memory with them


@dataclass(frozen=True)
class Kept:
    """An answer that is the same for everybody, good until `until` by the monotonic clock."""

    rendered: Rendered
    until: float


def respond_again(request: Request, kept: Kept) -> Response:
    """The answer to `request`, and until it is too old the answer to all that ask for the same."""
    request.scope[KEPT] = kept
    return respond(request, kept.rendered)


class RecentAnswers:
    """The first to ask goes through the whole stack; then no route, parameter or model is looked at again until the
    answer is too old. Stands inside of the frame, so that ids, headers, limits, metrics and log are as ever.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers: dict[tuple[str, bytes], _Answer] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        key = (scope["path"], scope["query_string"])
        answer = self._answers.get(key)
        if answer is not None and answer.kept.until > time.monotonic():
            await answer.give(scope, send)
            return
        await self._app(scope, receive, send)
        kept: Kept | None = scope.get(KEPT)
        if kept is not None and len(scope["query_string"]) <= LONGEST_QUERY:
            self._answers.pop(key, None)  # so that the order of the dict stays the order of age
            self._answers[key] = _Answer(kept, scope["route"])
            while len(self._answers) > MOST_ANSWERS:
                del self._answers[next(iter(self._answers))]


class _Answer:
    """The messages of both answers, made once."""

    def __init__(self, kept: Kept, route: Any) -> None:
        self.kept = kept
        self._route = route
        self._headers = full(kept.rendered).raw_headers
        self._headers_unchanged = unchanged(kept.rendered).raw_headers

    async def give(self, scope: Scope, send: Send) -> None:
        scope["route"] = self._route  # metrics and traces go by it
        known = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
        if known is not None and names(known.decode("latin-1"), self.kept.rendered.etag):
            await send({"type": "http.response.start", "status": 304, "headers": self._headers_unchanged})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await send({"type": "http.response.body", "body": self.kept.rendered.body})
