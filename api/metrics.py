"""Prometheus: rate, errors and duration of every route, and what the shop's owner wants to know."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from fastapi import Request, Response
from loguru import logger
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as render
from sqlalchemy import text

from api.deps import Resources, get_resources
from api.routing import Router
from core.db import Sessions
from models.types import OrderStatus, Service

router = Router(tags=["operations"])

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LABELS = ("method", "route", "status")

REQUESTS = Counter("http_requests_total", "Requests answered", _LABELS)
DURATION = Histogram("http_request_duration_seconds", "Time to the answer", ("method", "route"), buckets=_BUCKETS)
IN_PROGRESS = Gauge("http_requests_in_progress", "Requests under way, open streams among them")
STREAMS = Gauge("mercato_sse_streams", "Open event streams of this process")

KEEP_SECONDS = 5.0
KEEP_FACTOR = 20  # a query that took 1 s is asked again after 20 s: scraping costs 5 % of one connection at most

_ORDERS_BY_STATUS = text("SELECT status, count(*) FROM orders.orders GROUP BY status")
_ORDERS_OPEN = text(
    """
    SELECT count(*) FILTER (WHERE needs_attention),
           count(*) FILTER (WHERE payment_status = 'unknown'),
           coalesce(extract(epoch FROM now() - min(created_at)
               FILTER (WHERE status IN ('pending', 'action_required'))), 0)::float8
      FROM orders.orders
     WHERE needs_attention OR status IN ('pending', 'action_required')
        OR (status = 'confirmed' AND payment_status <> 'captured')
    """
)
_BREAKS = text(
    """
    SELECT kind, count(*), extract(epoch FROM now() - min(first_seen_at))::float8
      FROM orders.breaks WHERE state = 'open' GROUP BY kind
    """
)
_RESERVATIONS = text(
    """
    SELECT (SELECT coalesce(sum(reserved), 0) FROM catalog.stock)
         - (SELECT coalesce(sum(l.quantity), 0)
              FROM catalog.reservations r JOIN catalog.reservation_lines l USING (order_id)
             WHERE r.state = 'active'),
           (SELECT count(*) FROM catalog.reservations
             WHERE state = 'active' AND expires_at < now() - interval '2 minutes')
    """
)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    answered, duration = _series(method, route, status)
    answered.inc()
    duration.observe(seconds)


@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """As many as Prometheus keeps anyway; finding them by their labels would cost more than counting does."""
    return REQUESTS.labels(method, route, str(status)), DURATION.labels(method, route)


class BusinessMetrics:
    """Gauges read from the database of each mounted service, at most every few seconds."""

    def __init__(self, sessions: Mapping[Service, Sessions]) -> None:
        self._sessions = sessions
        self._fresh_until = 0.0
        self.registry = CollectorRegistry()
        if Service.ORDERS in sessions:
            self._orders = self._gauge("mercato_orders", "Orders by status", ("status",))
            self._attention = self._gauge("mercato_orders_needing_attention", "Orders that wait for a person")
            self._unknown = self._gauge("mercato_payments_unknown", "Payments of which the outcome is not known")
            self._oldest = self._gauge("mercato_oldest_open_order_age_seconds", "Age of the oldest open order")
            self._breaks = self._gauge(
                "mercato_breaks_open", "Breaks found by reconciliation and not closed", ("kind",)
            )
            self._oldest_break = self._gauge("mercato_oldest_open_break_age_seconds", "Age of the oldest open break")
        if Service.CATALOG in sessions:
            self._leak = self._gauge("mercato_reservation_leak_units", "Reserved stock without a reservation")
            self._overdue = self._gauge("mercato_reservations_overdue", "Reservations two minutes past their end")

    async def refresh(self) -> None:
        """A database that is down leaves the last figures standing: a scrape never fails because of it."""
        started = time.monotonic()
        if started < self._fresh_until:
            return
        self._fresh_until = started + KEEP_SECONDS  # others who scrape meanwhile do not ask as well
        for service, read in ((Service.ORDERS, self._read_orders), (Service.CATALOG, self._read_stock)):
            if service in self._sessions:
                try:
                    await read(self._sessions[service])
                except Exception as error:
                    logger.warning("Metrics of {} could not be read: {}", service.value, type(error).__name__)
        ended = time.monotonic()
        self._fresh_until = ended + max(KEEP_SECONDS, KEEP_FACTOR * (ended - started))

    async def _read_orders(self, sessions: Sessions) -> None:
        by_status = dict.fromkeys((status.value for status in OrderStatus), 0)
        by_status.update({row[0]: row[1] for row in await _rows(sessions, _ORDERS_BY_STATUS)})
        for status, count in by_status.items():
            self._orders.labels(status).set(count)
        ((attention, unknown, oldest),) = await _rows(sessions, _ORDERS_OPEN)
        self._attention.set(attention)
        self._unknown.set(unknown)
        self._oldest.set(oldest)
        found = await _rows(sessions, _BREAKS)
        self._breaks.clear()
        for kind, count, _ in found:
            self._breaks.labels(kind).set(count)
        self._oldest_break.set(max((age for *_, age in found), default=0))

    async def _read_stock(self, sessions: Sessions) -> None:
        ((leak, overdue),) = await _rows(sessions, _RESERVATIONS)
        self._leak.set(leak)
        self._overdue.set(overdue)

    def _gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, description, labels, registry=self.registry)


async def _rows(sessions: Sessions, statement: Any) -> Sequence[Any]:
    async with sessions() as session:
        return (await (await session.connection()).execute(statement)).all()


async def exposition(resources: Resources) -> Response:
    """Everything this process knows, in Prometheus' text format."""
    business: BusinessMetrics = resources.extra["metrics"]
    await business.refresh()
    return Response(render(REGISTRY) + render(business.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    return await exposition(get_resources(request))
