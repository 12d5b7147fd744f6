"""Gives again what a route has just answered, to whoever asks for the same path and query within its moment."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.types import Message, Scope

from api.etags import Rendered, full, names, respond, unchanged

KEPT = "mercato.kept_answer"  # in the scope: what the route lets be given again
MOST_ANSWERS = 512
LONGEST_QUERY = 512  # bytes: strangers choose the queries, and could fill the memory with them

HeaderPairs = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Kept:
    """An answer that is the same for everybody, good until `until` by the monotonic clock."""

    rendered: Rendered
    until: float


def respond_again(request: Request, kept: Kept) -> Response:
    """The answer to `request`, and until it is too old the answer to all that ask for the same."""
    request.scope[KEPT] = kept
    return respond(request, kept.rendered)


class RecentAnswer:
    """What is sent again, made ready once; `common` are the headers that every response bears."""

    def __init__(self, kept: Kept, route: Any, common: HeaderPairs) -> None:
        self.until = kept.until
        self.route = route
        self.route_path: str = route.path
        self._etag = kept.rendered.etag
        self._body = kept.rendered.body
        self._headers = [*full(kept.rendered).raw_headers, *common]
        self._headers_unchanged = [*unchanged(kept.rendered).raw_headers, *common]

    def messages(self, if_none_match: bytes | None, ids: HeaderPairs) -> tuple[Message, Message]:
        """The two that a server is sent; 304 for those who have the answer already."""
        status, headers, body = 200, self._headers, self._body
        if if_none_match is not None and names(if_none_match.decode("latin-1"), self._etag):
            status, headers, body = 304, self._headers_unchanged, b""
        return (
            {"type": "http.response.start", "status": status, "headers": [*headers, *ids]},
            {"type": "http.response.body", "body": body},
        )


class RecentAnswers:
    """The first to ask goes through the whole stack; until the answer is too old, no route, parameter or model is
    looked at again for the others."""

    def __init__(self, common: HeaderPairs) -> None:
        self._common = common
        self._answers: dict[tuple[str, bytes], RecentAnswer] = {}

    def find(self, scope: Scope) -> RecentAnswer | None:
        """The answer to this request, if one is fresh."""
        if scope["method"] != "GET":
            return None
        answer = self._answers.get((scope["path"], scope["query_string"]))
        return answer if answer is not None and answer.until > time.monotonic() else None

    def learn(self, scope: Scope) -> None:
        """Keep what the route, which has answered now, lets be kept."""
        kept: Kept | None = scope.get(KEPT)
        if kept is None or len(scope["query_string"]) > LONGEST_QUERY:
            return
        key = (scope["path"], scope["query_string"])
        self._answers.pop(key, None)  # so that the order of the dict stays the order of age
        self._answers[key] = RecentAnswer(kept, scope["route"], self._common)
        while len(self._answers) > MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]

    def __len__(self) -> int:
        return len(self._answers)
