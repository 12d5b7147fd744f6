"""Fixtures of the payment tests: the service's sessions, gateways to a running processor, one order to be paid."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.types import Service
from services.processor import Processor
from tests.services.paying import ACCOUNT, Purchase


@pytest.fixture(scope="session")
async def payment_sessions(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(Settings(database_url=database_url).service_database_url(Service.PAYMENTS))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture(scope="session")
async def gateway(processor_url: str) -> AsyncIterator[Processor]:
    gateway = Processor(Settings(processor_url=processor_url, processor_api_key=ACCOUNT, processor_timeout_seconds=1))
    yield gateway
    await gateway.aclose()


@pytest.fixture(scope="session")
async def patient_gateway(processor_url: str) -> AsyncIterator[Processor]:
    """Waits longer than the faults of these tests last."""
    gateway = Processor(Settings(processor_url=processor_url, processor_api_key=ACCOUNT, processor_timeout_seconds=5))
    yield gateway
    await gateway.aclose()


@pytest.fixture(scope="session")
async def processor_admin(processor_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=processor_url) as client:
        yield client


@pytest.fixture
def new_purchase(
    payment_sessions: Sessions, gateway: Processor, processor_admin: httpx.AsyncClient
) -> Callable[[], Purchase]:
    return lambda: Purchase(payment_sessions, gateway, processor_admin)


@pytest.fixture
def order(new_purchase: Callable[[], Purchase]) -> Purchase:
    return new_purchase()
