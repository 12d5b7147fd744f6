"""Answers with a weak ETag of their body, and 304 for those who have it already."""

import hashlib
from dataclasses import dataclass

from fastapi import Request, Response

from api.shapes import ResponseModel

# Ask again each time, by ETag: what we keep for a second must not be kept for longer elsewhere.
REVALIDATE = "no-cache"


@dataclass(frozen=True)
class Rendered:
    body: bytes
    etag: str


def render(answer: ResponseModel) -> Rendered:
    """The JSON of `answer` with its tag."""
    body = answer.model_dump_json(by_alias=True).encode()
    return Rendered(body, f'W/"{hashlib.sha256(body).hexdigest()[:24]}"')


def respond(request: Request, rendered: Rendered) -> Response:
    """200 with the body, or 304 if the request names its tag."""
    known = request.headers.get("If-None-Match")
    return unchanged(rendered) if known is not None and names(known, rendered.etag) else full(rendered)


def full(rendered: Rendered) -> Response:
    return Response(rendered.body, media_type="application/json", headers=_headers(rendered))


def unchanged(rendered: Rendered) -> Response:
    return Response(status_code=304, headers=_headers(rendered))


def names(if_none_match: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, 8.8.3.2): `W/` makes no difference. None of our tags holds a comma."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


def _headers(rendered: Rendered) -> dict[str, str]:
    return {"ETag": rendered.etag, "Cache-Control": REVALIDATE}
