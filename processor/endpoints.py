"""Webhook endpoints: who wants to be told of what, by account, as at Stripe."""

from typing import Any
from urllib.parse import urlsplit

from processor.context import Context
from processor.errors import Reply, invalid_request, resource_missing
from processor.events import TYPES
from processor.forms import JSON
from processor.ids import new_id, random_text
from processor.listing import Listing
from processor.params import Params

FIELDS = ("url", "enabled_events", "description", "metadata", "disabled", "api_version", "connect", "expand")
ENDPOINTS = Listing("processor.webhook_endpoint", "webhook_endpoint", "/v1/webhook_endpoints", ())


async def create(context: Context, params: Params) -> Reply:
    """A new endpoint; its secret is shown this once."""
    url, types = _url(params.required_text("url")), _types(params)
    if not types:
        raise invalid_request("Missing required param: enabled_events.", param="enabled_events")
    document = {
        "id": new_id("we"),
        "object": "webhook_endpoint",
        "api_version": params.text("api_version"),
        "application": None,
        "created": context.now,
        "description": params.text("description"),
        "enabled_events": types,
        "livemode": False,
        "metadata": params.metadata() or {},
        "status": "enabled",
        "url": url,
    }
    secret = f"whsec_{random_text(32)}"
    insert(context, document, secret)
    return Reply(200, {**document, "secret": secret})


def insert(context: Context, document: JSON, secret: str) -> None:
    """Write an endpoint, or write it anew."""
    context.write(
        """
        INSERT INTO processor.webhook_endpoint (id, account, created, url, enabled_events, secret, status, document)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)
        ON CONFLICT (id) DO UPDATE SET url = excluded.url, enabled_events = excluded.enabled_events,
            secret = excluded.secret, status = excluded.status, document = excluded.document
        """,
        document["id"],
        context.account,
        document["created"],
        document["url"],
        document["enabled_events"],
        secret,
        document["status"],
        context.encoded(document),
    )


async def update(context: Context, endpoint_id: str, params: Params) -> Reply:
    """Another address or other events; `disabled` turns it off and on."""
    document = (await ENDPOINTS.one(context, endpoint_id)).body
    if "url" in params:
        document["url"] = _url(params.required_text("url"))
    document["enabled_events"] = _types(params) or document["enabled_events"]
    if (disabled := params.boolean("disabled")) is not None:
        document["status"] = "disabled" if disabled else "enabled"
    secret: str = await context.connection.fetchval(
        "SELECT secret FROM processor.webhook_endpoint WHERE id = $1", endpoint_id
    )
    insert(context, document, secret)
    return Reply(200, document)


async def delete(context: Context, endpoint_id: str) -> Reply:
    """Gone, with what it had still to be told."""
    gone = await context.connection.fetchval(
        "DELETE FROM processor.webhook_endpoint WHERE id = $1 AND account = $2 RETURNING id",
        endpoint_id,
        context.account,
    )
    if gone is None:
        raise resource_missing("webhook_endpoint", endpoint_id, "id", 404)
    return Reply(200, {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True})


def configured(account: str, now: int, url: str, types: list[str]) -> dict[str, Any]:
    """The endpoint that the process was started with: one an account, the same after each start."""
    return {
        "id": f"we_configured_{account}",
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": now,
        "description": "configured at the start of the processor",
        "enabled_events": types,
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": url,
    }


def _url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid_request("Invalid URL: An explicit scheme (such as https) must be provided.", param="url")
    return url


def _types(params: Params) -> list[str]:
    types = params.texts("enabled_events")
    if unknown := [type_ for type_ in types if type_ != "*" and type_ not in TYPES]:
        raise invalid_request(
            f"Invalid enabled_events: must be one of {', '.join(TYPES)}; not {unknown[0]}", param="enabled_events"
        )
    return types
