"""The page of a make-believe bank: the shopper, in a browser, passes or fails 3-D Secure."""

import hmac
from html import escape
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from processor import intents
from processor.context import working
from processor.database import Connection
from processor.forms import JSON
from processor.server import route

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px system-ui;margin:4rem auto;max-width:26rem;padding:0 1rem}}
button{{font:inherit;padding:.6rem 1rem}}
form{{display:inline-block;margin-right:.5rem}}</style></head><body><h1>{title}</h1>{body}</body></html>"""
ASK = """<p>Your bank asks whether it is really you who pays {amount} {currency}.</p>
<form method="post" action="{id}/complete"><input type="hidden" name="client_secret" value="{secret}">
<button>Complete</button></form>
<form method="post" action="{id}/fail"><input type="hidden" name="client_secret" value="{secret}">
<button>Fail</button></form>"""


async def show(request: Request) -> Response:
    """Ask the shopper. Whoever does not hold the client secret sees nothing."""
    intent_id, client_secret = request.path_params["intent_id"], request.query_params.get("client_secret", "")
    async with request.app.state.pool.acquire() as connection:
        found = await _find(connection, intent_id, client_secret)
    if found is None:
        return _page("Not found", "<p>There is no such payment.</p>", 404)
    _, intent = found
    if intent["status"] != "requires_action":
        return _page("Nothing to do", f"<p>This payment is {escape(intent['status'])}.</p>")
    body = ASK.format(
        id=escape(intent_id),
        secret=escape(client_secret),
        amount=intent["amount"],
        currency=escape(intent["currency"].upper()),
    )
    return _page("Is it you?", body)


async def complete(request: Request) -> Response:
    """The shopper is who they say."""
    return await _end(request, passed=True)


async def fail(request: Request) -> Response:
    """They are not."""
    return await _end(request, passed=False)


async def _end(request: Request, *, passed: bool) -> Response:
    intent_id = request.path_params["intent_id"]
    given = parse_qs((await request.body()).decode(errors="replace"))
    secret = given.get("client_secret", [request.query_params.get("client_secret", "")])[0]
    pool = request.app.state.pool
    async with pool.acquire() as connection:
        found = await _find(connection, intent_id, secret)
    if found is None:
        return _page("Not found", "<p>There is no such payment.</p>", 404)
    account, before = found
    async with working(pool, account, str(request.base_url), outbox=request.app.state.outbox) as context:
        intent = await intents.authenticated(context, intent_id, passed=passed)
        await context.flush()
    paid = intent["status"] in ("succeeded", "requires_capture")
    action = before["next_action"] or {}
    back = action.get("redirect_to_url", {}).get("return_url")
    if back:
        return RedirectResponse(_way_back(back, intent, paid), 303)
    return _page("Thank you" if paid else "Not authenticated", f"<p>This payment is {escape(intent['status'])}.</p>")


async def _find(connection: Connection, intent_id: str, secret: str) -> tuple[str, JSON] | None:
    row = await connection.fetchrow("SELECT account, document FROM processor.payment_intent WHERE id = $1", intent_id)
    if row is None or not hmac.compare_digest(row["document"]["client_secret"].encode(), secret.encode()):
        return None
    return row["account"], row["document"]


def _way_back(return_url: str, intent: JSON, paid: bool) -> str:
    parts = urlsplit(return_url)
    told = urlencode(
        {
            "payment_intent": intent["id"],
            "payment_intent_client_secret": intent["client_secret"],
            "redirect_status": "succeeded" if paid else "failed",
        }
    )
    return urlunsplit(parts._replace(query=f"{parts.query}&{told}" if parts.query else told))


def _page(title: str, body: str, status: int = 200) -> Response:
    return HTMLResponse(PAGE.format(title=escape(title), body=body), status)


ROUTES = (
    route("GET", "/test/3ds/{intent_id}", show),
    route("POST", "/test/3ds/{intent_id}/complete", complete),
    route("POST", "/test/3ds/{intent_id}/fail", fail),
)
