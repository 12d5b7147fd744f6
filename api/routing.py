"""Routes that find out who is calling before they complain about a body they cannot parse."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from api.errors import MALFORMED

PARSED = "mercato.parsed_json"  # in the scope: the body, for checks that come before its validation
_NULL = re.compile(rb"\x00|(?<!\\)(?:\\\\)*\\u0000")  # PostgreSQL stores none, and nobody types one


class LenientRequest(Request):
    """`json()` never fails: FastAPI parses the body before it runs any dependency, and would answer 422 to a stranger.

    What cannot be parsed becomes empty bytes, which no body model accepts; so the dependencies run (401, 403, 404, the
    idempotency key), then the body is refused, and the mark in the scope tells api.errors why.
    """

    async def json(self) -> Any:
        try:
            parsed = json.loads(await self.body(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            self.scope[MALFORMED] = True
            return b""
        if _NULL.search(await self.body()):
            self.scope[MALFORMED] = True
            return b""
        self.scope[PARSED] = parsed
        return parsed


class LenientRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(LenientRequest(request.scope, request.receive))

        return handle


class Router(APIRouter):
    """An APIRouter whose routes are LenientRoutes; every router of this API is one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=LenientRoute, **options)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
