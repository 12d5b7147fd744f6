"""A worker process: makes the resources, lists every registration, drains on SIGTERM."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from loguru import logger
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker

from activities.books import BooksActivities
from activities.breaks import BreakBook
from activities.carts import CartActivities
from activities.inventory import InventoryActivities
from activities.notifications import NotificationActivities
from activities.orders import OrderActivities
from activities.payments import PaymentActivities
from activities.reconciliation import ReconciliationActivities
from activities.recorder import OrderRecorder
from core import temporal
from core.db import Sessions, make_engine, make_sessions
from core.faults import switchboard
from core.redis import make_redis
from core.settings import Settings
from models.messages import ReconcileInput
from models.types import Service
from services.pricing import Rates
from services.processor import Processor
from workers.errors import ErrorInterceptor
from workers.faults import FaultInterceptor, customer_of
from workers.health import serve_health
from workers.quarantine import quarantine
from workflows import options
from workflows.checkout import CheckoutWorkflow
from workflows.fulfilment import FulfilmentWorkflow
from workflows.reconciliation import ReconciliationWorkflow

WORKFLOWS = (CheckoutWorkflow, FulfilmentWorkflow, ReconciliationWorkflow)
OVERDUE_SECONDS = 600  # beyond what a reservation, a round and its pause may take
GRACE = timedelta(seconds=12)  # above the longest attempt, so that a shutdown uses up none


@dataclass(frozen=True)
class Resources:
    """What activities work with: one set of sessions a service, each under its own role."""

    settings: Settings
    sessions: dict[Service, Sessions]
    recorder: OrderRecorder
    processor: Processor
    client: Client


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open everything, close it in reverse. Waits for Temporal, which may start after the worker."""
    async with AsyncExitStack() as stack:
        sessions = {}
        for service in (Service.CATALOG, Service.CARTS, Service.ORDERS, Service.PAYMENTS, Service.NOTIFICATIONS):
            engine = make_engine(settings.service_database_url(service), application=f"mercato-worker-{service}")
            stack.push_async_callback(engine.dispose)
            sessions[service] = make_sessions(engine)
        redis = make_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        processor = Processor(settings)
        stack.push_async_callback(processor.aclose)
        yield Resources(
            settings=settings,
            sessions=sessions,
            recorder=OrderRecorder(sessions[Service.ORDERS], redis),
            processor=processor,
            client=await _connected(settings),
        )


def activities_of(resources: Resources) -> list[Any]:
    """Every activity of the platform, bound to its dependencies."""
    sessions, recorder, settings = resources.sessions, resources.recorder, resources.settings
    rates = Rates(
        currency=settings.currency,
        shipping_flat_amount=settings.shipping_flat_amount,
        shipping_free_from_amount=settings.shipping_free_from_amount,
        tax_basis_points=settings.tax_basis_points,
    )
    orders = OrderActivities(recorder, sessions[Service.CARTS], sessions[Service.CATALOG], rates)
    inventory = InventoryActivities(sessions[Service.CATALOG], recorder)
    payments = PaymentActivities(sessions[Service.PAYMENTS], resources.processor, recorder)
    carts = CartActivities(sessions[Service.CARTS])
    notifications = NotificationActivities(sessions[Service.NOTIFICATIONS], sessions[Service.ORDERS])
    book = BreakBook(recorder)
    reconciliation = ReconciliationActivities(
        orders=sessions[Service.ORDERS],
        catalog=sessions[Service.CATALOG],
        carts=sessions[Service.CARTS],
        notifications=sessions[Service.NOTIFICATIONS],
        book=book,
        client=resources.client,
    )
    books = BooksActivities(
        orders=sessions[Service.ORDERS],
        payments=sessions[Service.PAYMENTS],
        processor=resources.processor,
        book=book,
        client=resources.client,
    )
    return [
        orders.prepare,
        orders.confirm,
        orders.close,
        orders.begin_cancel,
        orders.cancel_sold,
        orders.mark_attention,
        orders.clear_attention,
        orders.audit,
        inventory.reserve,
        inventory.prolong,
        inventory.release,
        inventory.restock,
        payments.authorize,
        payments.capture,
        payments.void,
        payments.refund,
        carts.clear,
        notifications.queue_confirmation,
        reconciliation.reconcile,
        books.compare_books,
    ]


def make_worker(resources: Resources, besides: Sequence[Interceptor] = ()) -> Worker:
    """The worker of the checkout queue."""
    settings = resources.settings
    interceptors: Sequence[Interceptor] = [ErrorInterceptor(), *besides]
    if faults := switchboard(settings, "worker", customer_of(resources.sessions[Service.ORDERS])):
        interceptors = [*interceptors, FaultInterceptor(faults)]
    return queue_worker(
        resources.client,
        options.TASK_QUEUE,
        workflows=WORKFLOWS,
        activities=activities_of(resources),
        interceptors=interceptors,
        # tasks of runs cached by a worker that died wait this long before another worker may have them
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=settings.workflow_task_seconds),
    )


def queue_worker(client: Client, queue: str, **registrations: Any) -> Worker:
    """A worker of `queue`, with the options that hold for every queue."""
    return Worker(
        client,
        task_queue=queue,
        workflow_runner=UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=GRACE,
        max_concurrent_activities=50,
        max_concurrent_local_activities=50,
        **registrations,
    )


async def run(settings: Settings, queue: str = options.TASK_QUEUE) -> None:
    """Poll `queue` until SIGTERM or SIGINT, then finish what was begun (at most 12 s) and return.

    Raises:
        ValueError: no worker of this platform polls `queue`.
    """
    if queue != options.TASK_QUEUE:
        raise ValueError(f"no such task queue: {queue}; there is: {options.TASK_QUEUE}")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_resources(settings) as resources, AsyncExitStack() as stack:
        await temporal.ensure_search_attributes(resources.client)
        await ensure_schedule(resources.client, settings)
        noted = stack.enter_context(quarantine(settings.data_dir / "workers", settings.quarantine_seconds))
        async with serve_health(settings.host, settings.worker_metrics_port), make_worker(resources, noted):
            # What was imported stays for ever: full collections need not look through it each time.
            gc.collect()
            gc.freeze()
            logger.info("worker polls {queue}", queue=queue)
            await stop.wait()
            logger.info("worker drains")


def reconcile_input(settings: Settings, *, everything: bool = False) -> ReconcileInput:
    """What a pass of reconciliation is started with."""
    rounds = settings.round_seconds + settings.round_pause_seconds
    return ReconcileInput(
        older_than_seconds=settings.reconcile_after_seconds,
        give_back_after_seconds=settings.give_back_after_seconds,
        overdue_seconds=int(settings.reservation_ttl_seconds + rounds + OVERDUE_SECONDS),
        everything=everything,
    )


async def ensure_schedule(client: Client, settings: Settings) -> None:
    """The reconciliation schedule: made at the first start. Later its input follows the settings, and all else stays as
    it is: staff may have paused it in the UI."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            ReconciliationWorkflow.run,
            reconcile_input(settings),
            id="reconciliation",
            task_queue=options.TASK_QUEUE,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(seconds=settings.reconcile_every_seconds))]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=60)),
    )
    try:
        await client.create_schedule("reconciliation", schedule)
    except ScheduleAlreadyRunningError:
        await _update_schedule(client, settings)


async def _update_schedule(client: Client, settings: Settings) -> None:
    wanted = reconcile_input(settings)

    async def change(now: ScheduleUpdateInput) -> ScheduleUpdate | None:
        schedule = now.description.schedule
        action = schedule.action
        if not isinstance(action, ScheduleActionStartWorkflow):
            return None
        action.args = [wanted]
        return ScheduleUpdate(schedule)

    try:
        await client.get_schedule_handle("reconciliation").update(change)
    except RPCError as error:
        logger.warning("the reconciliation schedule keeps its old input: {error}", error=str(error))


async def _connected(settings: Settings) -> Client:
    runtime = None
    if settings.temporal_metrics_port:
        metrics = PrometheusConfig(
            bind_address=f"{settings.host}:{settings.temporal_metrics_port}",
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
        )
        runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics))
    while True:
        try:
            return await temporal.connect(settings, runtime=runtime)
        except RuntimeError as error:
            logger.warning("waiting for Temporal: {error}", error=str(error))
            await asyncio.sleep(0.5)
