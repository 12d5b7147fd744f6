"""The same checkout on DBOS Transact: same API, same services, same PostgreSQL. `python -m bench.dbos_twin PORT`.

Only the engine differs. Where the platform starts a Temporal workflow and waits for its outcome, this starts a DBOS
workflow whose steps are the very functions that the worker registers. DBOS is a library: workflows run in the web
process, each step is a row in PostgreSQL. It has the happy path only (no undo, no waiting for another card), which is
what is measured.
"""

import asyncio
import gc
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
import uvloop
from dbos import DBOS, DBOSConfig, SetWorkflowID

from activities.carts import CartActivities
from activities.inventory import InventoryActivities
from activities.notifications import NotificationActivities
from activities.orders import OrderActivities
from activities.payments import PaymentActivities
from api import checkouts
from api.main import create_app
from core.logging import configure_logging
from core.settings import Settings
from core.telemetry import configure_telemetry
from models.messages import AuthorizePayment, CheckoutInput, OrderRef, PrepareOrder, QueueConfirmation, ReserveStock
from workers.main import activities_of, open_resources

ENGINE_POOL = 20  # as many connections as one of our processes may open for a service, and a few more

_bound: dict[str, Any] = {}  # activity name -> the function bound to its resources; filled before DBOS is launched


def _step(activity: Any) -> Any:
    """A DBOS step that runs the activity of this name."""
    name = activity.__name__

    @DBOS.step(name=name)
    async def run(message: Any) -> Any:
        return await _bound[name](message)

    return run


prepare, confirm = _step(OrderActivities.prepare), _step(OrderActivities.confirm)
reserve = _step(InventoryActivities.reserve)
authorize, capture = _step(PaymentActivities.authorize), _step(PaymentActivities.capture)
clear_cart, notify = _step(CartActivities.clear), _step(NotificationActivities.queue_confirmation)


@DBOS.workflow(name="checkout")
async def sell(order: CheckoutInput) -> str:
    """As workflows/checkout.py, when all goes well."""
    ref = OrderRef(order_id=order.order_id)
    prepared = await prepare(PrepareOrder(order_id=order.order_id, customer_id=order.customer_id))
    if prepared.refusal:
        raise RuntimeError(prepared.refusal.detail)
    quantities = {line.product_id: line.quantity for line in prepared.lines}
    await reserve(
        ReserveStock(order_id=order.order_id, quantities=quantities, ttl_seconds=order.reservation_ttl_seconds)
    )
    await authorize(
        AuthorizePayment(
            order_id=order.order_id,
            request_key="place",
            payment_method_id=order.payment_method_id,
            amount=prepared.total,
        )
    )
    await confirm(ref)
    message = QueueConfirmation(
        order_id=order.order_id, customer_id=order.customer_id, number=prepared.number, total=prepared.total
    )
    await asyncio.gather(capture(ref), clear_cart(ref), notify(message))
    return "confirmed"


async def start(through: checkouts.Checkouts, checkout: CheckoutInput, wait: float) -> None:  # noqa: ARG001
    """In place of api/checkouts.start; `through`, the way into Temporal, is not taken."""
    with SetWorkflowID(f"checkout-{checkout.order_id}"):
        handle = await DBOS.start_workflow_async(sell, checkout)
    async with asyncio.timeout(wait):
        await handle.get_result()


async def serve(settings: Settings, port: int) -> None:
    """The whole API on `port`, with DBOS in it."""
    configure_logging(settings, "twin")
    configure_telemetry(settings, "twin")
    checkouts.start = start
    app = create_app(settings)
    opened = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        async with AsyncExitStack() as stack:
            resources = await stack.enter_async_context(open_resources(settings))
            _bound.update({one.__func__.__name__: one for one in activities_of(resources)})
            await asyncio.to_thread(DBOS.launch)
            await stack.enter_async_context(opened(app))
            gc.collect()
            gc.freeze()  # as `mercato serve` and `mercato worker`
            yield

    app.router.lifespan_context = lifespan
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    here = DBOSConfig(
        name="mercato-twin",
        system_database_url=sys.argv[2],
        sys_db_pool_size=ENGINE_POOL,
        executor_id=f"twin-{sys.argv[1]}",
        application_version="bench",
        log_level="WARNING",
    )
    DBOS(config=here)
    uvloop.run(serve(Settings(), int(sys.argv[1])))
