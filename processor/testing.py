"""What a real processor does not have: faults on demand, a look into the books, health."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from processor import books
from processor.auth import account_of
from processor.database import UNREACHABLE
from processor.errors import invalid_request
from processor.faults import Faults, faults_from_json
from processor.server import route

MOST_ROWS = 5000


def _account(request: Request) -> str | None:
    """Whose faults are meant: with a key those of its account, without one everybody's."""
    authorization = request.headers.get("authorization")
    return account_of(authorization) if authorization else None


def _faults(request: Request) -> Faults:
    faults: Faults = request.app.state.faults
    return faults


def _listed(request: Request, account: str | None) -> Response:
    return JSONResponse({"object": "list", "data": _faults(request).listed(account)})


async def arm(request: Request) -> Response:
    """Arm one fault or an array of them, in place of those of the same scope (account and metadata)."""
    account = _account(request)
    _faults(request).replace(faults_from_json((await request.body()).decode(errors="replace"), account))
    return _listed(request, account)


async def armed(request: Request) -> Response:
    """What is armed."""
    return _listed(request, _account(request))


async def disarm(request: Request) -> Response:
    """Disarm all, or with `?order_id=` those of one order."""
    order_id = request.query_params.get("order_id")
    _faults(request).clear(_account(request), {"order_id": order_id} if order_id else {})
    return _listed(request, _account(request))


async def show_books(request: Request) -> Response:
    """The entries by intent, oldest first: `?order_id=`, and for more than a page `?limit=&starting_after=`."""
    account = account_of(request.headers.get("authorization"))
    query = request.query_params
    asked = query.get("limit", "1000")
    limit = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 6 else 0
    if not 1 <= limit <= MOST_ROWS:
        raise invalid_request(f"limit is a whole number from 1 to {MOST_ROWS}", param="limit")
    rows = await books.summary(
        request.app.state.pool,
        account,
        order_id=query.get("order_id"),
        after=query.get("starting_after"),
        limit=limit + 1,
    )
    return JSONResponse({"object": "list", "data": rows[:limit], "has_more": len(rows) > limit, "url": "/test/books"})


async def health(request: Request) -> Response:
    """200 while the database answers, else 503."""
    try:
        await request.app.state.pool.fetchval("SELECT 1", timeout=2)
    except UNREACHABLE:
        return JSONResponse({"status": "unavailable", "database": "down"}, 503)
    return JSONResponse({"status": "ok", "database": "up"})


ROUTES = (
    route("PUT", "/test/faults", arm),
    route("GET", "/test/faults", armed),
    route("DELETE", "/test/faults", disarm),
    route("GET", "/test/books", show_books),
    route("GET", "/health", health),
)
