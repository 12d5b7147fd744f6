"""One checkout is one trace: HTTP, workflow, activities, SQL and the processor, over two processes."""

import asyncio

from opentelemetry.instrumentation.utils import suppress_http_instrumentation

from tests.chaos.shop import Shop
from tests.core.test_telemetry import receiver
from tests.e2e.shopper import eventually
from tests.stack import Platform


async def test_a_checkout_is_one_trace_from_http_to_sql_and_processor(platform: Platform) -> None:
    async with receiver() as found, Shop.open(platform) as shop:
        traced = {"MERCATO_OTLP_ENDPOINT": found.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        await platform.worker.stop()
        api = await asyncio.to_thread(platform.start_api, env=traced)
        worker = await asyncio.to_thread(platform.start_worker, traced)
        try:
            product, headers = await shop.product(), await shop.shopper()
            with suppress_http_instrumentation():  # other tests may have made this process send a traceparent
                placed = await shop.place(headers, product, via=api.base_url)
            await shop.until(headers, placed.json()["orderId"], status="confirmed", paymentStatus="captured")
            trace_id = bytes.fromhex(placed.headers["X-Trace-Id"])
            wanted = (
                "POST /api/orders/place",
                "StartWorkflow:CheckoutWorkflow",
                "RunWorkflow:CheckoutWorkflow",
                "RunActivity:reserve",
                "RunActivity:authorize",
                "INSERT",
                "POST",
            )

            def missing() -> list[str]:
                seen = {span.name for span in found.spans if span.trace_id == trace_id}
                return [want for want in wanted if not any(name.startswith(want) for name in seen)]

            async def complete() -> bool:
                return not missing()

            try:
                await eventually(complete, 20)
            except AssertionError:
                raise AssertionError(f"no span of {missing()} in the trace") from None
        finally:
            await worker.stop()
            await api.stop()
            await platform.worker.restart()
