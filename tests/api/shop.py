"""Users, catalogue and carts in this process, on real servers, with shoppers and staff at hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
from fastapi import FastAPI

from api.deps import Resources
from api.main import create_app
from core.settings import Settings
from models.types import Role, Service
from services import users
from tests.api.accounts import PASSWORD, bearer, fresh_address, register, sign_in
from tests.warehouse import CATEGORY, Warehouse


class Shop:
    """Every client is a browser or program of its own; `warehouse` is the catalogue behind it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.resources: Resources = app.state.resources
        self.warehouse = Warehouse(self.resources.sessions[Service.CATALOG])

    @asynccontextmanager
    async def guest(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://shop.test") as client:
            yield client

    @asynccontextmanager
    async def shopper(self) -> AsyncIterator[httpx.AsyncClient]:
        async with self.guest() as client:
            client.headers.update(await self.credentials())
            yield client

    @asynccontextmanager
    async def staff(self) -> AsyncIterator[httpx.AsyncClient]:
        email = fresh_address()
        async with self.resources.sessions[Service.USERS].begin() as session:
            await users.ensure_user(session, email=email, password=PASSWORD, full_name="Sasha", role=Role.SUPPORT)
        async with self.guest() as client:
            client.headers.update(bearer(await sign_in(client, email)))
            yield client

    async def credentials(self) -> dict[str, str]:
        """The header of somebody who has just registered."""
        async with self.guest() as client:
            return bearer((await register(client))[1])


def new_product(**changes: Any) -> dict[str, Any]:
    """A body for POST /api/products; None takes a field out."""
    body = {
        "sku": f"API-{uuid4()}",
        "name": "Brass Telescope",
        "description": "Brings the far side of the harbour near.",
        "category": CATEGORY,
        "price": {"amount": 4900, "currency": "EUR"},
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


@asynccontextmanager
async def open_shop(settings: Settings) -> AsyncIterator[Shop]:
    app = create_app(settings, [Service.USERS, Service.CATALOG, Service.CARTS])
    async with app.router.lifespan_context(app):
        shop = Shop(app)
        await shop.warehouse.product(0)  # brings the category along
        yield shop
