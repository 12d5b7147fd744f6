"""Calls between services: one typed client each, in process when mounted together, over HTTP when alone."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import httpx

from api.auth import SERVICE_HEADER, service_credential
from core.settings import Settings
from models.errors import Unavailable
from models.messages import PricedProduct

TIMEOUT_SECONDS = 2.0


def internal_http(settings: Settings, url: str, app: Any | None) -> httpx.AsyncClient:
    """The way to a sister service: `app` when it is mounted in this process, else its address `url`."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False) if app is not None else None
    return httpx.AsyncClient(
        transport=transport,
        base_url=url or "http://mercato.internal",
        headers={SERVICE_HEADER: service_credential(settings)},
        timeout=TIMEOUT_SECONDS,
    )


async def get_json(http: httpx.AsyncClient, path: str, service: str) -> Any:
    """The JSON body of a 200; anything else means the sister service is of no help now: Unavailable."""
    try:
        response = await http.get(path)
        response.raise_for_status()
        return response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"The {service} service does not answer.") from error


async def post_json(http: httpx.AsyncClient, path: str, body: Any, service: str) -> Any:
    """As `get_json`, for a question that needs a body."""
    try:
        response = await http.post(path, json=body)
        response.raise_for_status()
        return response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"The {service} service does not answer.") from error


class UsersClient:
    """What other services may ask the users service."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def session_active(self, session_id: UUID) -> bool:
        """Whether the session has neither ended nor expired; raises Unavailable."""
        answer = await get_json(self._http, f"/internal/users/sessions/{session_id}", "users")
        return bool(answer["active"])

    async def keys(self) -> dict[str, Any]:
        """The public keys of access tokens, as a JWK set; raises Unavailable."""
        answer: dict[str, Any] = await get_json(self._http, "/internal/users/keys", "users")
        return answer

    async def user_id_of(self, email: str) -> UUID | None:
        """Whose address this is, None if nobody's; raises Unavailable. It travels in the body: paths get logged."""
        answer = await post_json(self._http, "/internal/users/find", {"email": email}, "users")
        return UUID(answer["userId"]) if answer["userId"] else None


class CatalogClient:
    """What other services may ask the catalogue."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def priced(self, product_ids: Collection[int]) -> dict[int, PricedProduct]:
        """Names and prices as of now, by product id; unknown ids are left out. Raises Unavailable."""
        if not product_ids:
            return {}
        body = {"productIds": list(product_ids)}
        answer = await post_json(self._http, "/internal/catalog/priced", body, "catalog")
        return {product.product_id: product for product in map(PricedProduct.model_validate, answer)}


class CartsClient:
    """What other services may ask of the carts."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def merge(self, guest_token: str, customer_id: UUID) -> None:
        """Put what this guest had into the customer's cart; a repeat moves nothing. Raises Unavailable."""
        body = {"guestToken": guest_token, "customerId": str(customer_id)}
        await post_json(self._http, "/internal/carts/merge", body, "carts")
