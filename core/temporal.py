"""Temporal: the one place where a client is made, and the search attributes staff filter by."""

import asyncio
from datetime import timedelta
from uuid import UUID

import temporalio.api.enums.v1 as enums
import temporalio.api.operatorservice.v1 as operator
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from core.settings import Settings
from models.errors import Unavailable
from models.messages import ProcessorNews

DATA_CONVERTER = pydantic_data_converter
CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")
NEEDS_ATTENTION = SearchAttributeKey.for_bool("NeedsAttention")
SEARCH_ATTRIBUTES = (
    SearchAttributeKey.for_keyword("OrderStatus"),
    CUSTOMER_ID,
    NEEDS_ATTENTION,
    SearchAttributeKey.for_keyword("FailureStep"),
    SearchAttributeKey.for_int("OrderTotal"),  # minor units
)


async def connect(settings: Settings, *, runtime: Runtime | None = None, lazy: bool = False) -> Client:
    """A client with the platform's data converter and tracing; workers inherit both from it."""
    return await Client.connect(
        settings.temporal_address or f"{settings.host}:{settings.temporal_port}",
        namespace=settings.temporal_namespace,
        data_converter=DATA_CONVERTER,
        plugins=[OpenTelemetryPlugin(add_temporal_spans=bool(settings.otlp_endpoint))],
        runtime=runtime,
        lazy=lazy,
    )


class TemporalConnector:
    """Connects at the first use and again after a failure, so that a process starts while Temporal is down."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    async def client(self) -> Client:
        """The shared client.

        Raises:
            Unavailable: the server cannot be reached.
        """
        async with self._lock:
            if self._client is None:
                try:
                    self._client = await asyncio.wait_for(connect(self._settings), timeout=2)
                except (RuntimeError, RPCError, TimeoutError) as error:
                    raise Unavailable("Temporal cannot be reached") from error
            return self._client

    async def healthy(self) -> bool:
        """Whether the server answers within a second."""
        try:
            client = await self.client()
            return await client.service_client.check_health(timeout=timedelta(seconds=1))
        except (Unavailable, RPCError, RuntimeError):
            return False

    async def close(self) -> None:
        """Forget the client; the SDK closes its connection with the last reference."""
        self._client = None


async def tell_order(client: Client, order_id: UUID, news: ProcessorNews) -> bool:
    """Wake the runs of an order that may wait for the processor. False: none of them runs.

    Raises:
        RPCError: Temporal did not take it.
    """
    told = False
    for kind in ("checkout", "repair", "fulfilment"):
        try:
            await client.get_workflow_handle(f"{kind}-{order_id}").signal("processor_news", news)
            told = True
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
    return told


async def ensure_search_attributes(client: Client) -> None:
    """Create what is missing. The dev server's own flag works on a new database only; a repeat is harmless."""
    wanted = {key.name: _indexed_type(key) for key in SEARCH_ATTRIBUTES}
    try:
        await client.operator_service.add_search_attributes(
            operator.AddSearchAttributesRequest(namespace=client.namespace, search_attributes=wanted)
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


def _indexed_type(key: SearchAttributeKey) -> "enums.IndexedValueType.ValueType":  # type: ignore[type-arg]
    names = {str: "KEYWORD", bool: "BOOL", int: "INT"}
    return enums.IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{names[key.origin_value_type]}")
