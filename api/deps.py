"""What a route may ask for, each named once."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import Sessions
from core.settings import Settings
from models.types import Service

if TYPE_CHECKING:
    from api.clients import CartsClient, CatalogClient, UsersClient
    from api.tokens import TokenVerifier
    from core.events import EventHub
    from core.faults import Switchboard
    from core.temporal import TemporalConnector


@dataclass
class Resources:
    """Everything one API process holds open; made in the lifespan, only what its services need is used."""

    settings: Settings
    sessions: dict[Service, Sessions]
    redis: Redis
    temporal: "TemporalConnector"
    catalog: "CatalogClient"
    users: "UsersClient"
    carts: "CartsClient"
    tokens: "TokenVerifier"
    events: "EventHub"
    faults: "Switchboard | None" = None
    extra: dict[str, Any] = field(default_factory=dict)


def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def _resources(request: Request) -> Resources:
    return get_resources(request)


# A dependency that is no coroutine would cost every request a trip to a thread and back.
ResourcesDep = Annotated[Resources, Depends(_resources)]


def _session_of(service: Service) -> Callable[..., AsyncIterator[AsyncSession]]:
    async def session(resources: ResourcesDep) -> AsyncIterator[AsyncSession]:
        async with resources.sessions[service].begin() as opened:
            yield opened

    return session


# One request, one transaction: committed before the answer is sent (scope="function"), rolled back by any error.
UsersSession = Annotated[AsyncSession, Depends(_session_of(Service.USERS), scope="function")]
CatalogSession = Annotated[AsyncSession, Depends(_session_of(Service.CATALOG), scope="function")]
CartsSession = Annotated[AsyncSession, Depends(_session_of(Service.CARTS), scope="function")]
OrdersSession = Annotated[AsyncSession, Depends(_session_of(Service.ORDERS), scope="function")]
PaymentsSession = Annotated[AsyncSession, Depends(_session_of(Service.PAYMENTS), scope="function")]
NotificationsSession = Annotated[AsyncSession, Depends(_session_of(Service.NOTIFICATIONS), scope="function")]
