"""Server-sent events: one order, or all of a customer's, with resumption.

A connection gets a `snapshot` (no id), then the events after its `Last-Event-ID`, then what happens. `id` is the
customer's seq, `event` the fact's type, `data` its JSON. Without `Last-Event-ID` a stream begins now, `0` is the
beginning of the log. An id that this log never gave out (no number, negative, greater than the newest) is answered by
a `resync` event and the whole log from its beginning: late or twice is harmless, a gap would not be.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from random import randint
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Query, Response
from loguru import logger
from sqlmodel.ext.asyncio.session import AsyncSession
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from api.auth import CurrentUser, Principal
from api.deps import Resources, ResourcesDep
from api.limits import limit
from api.order_views import load_order_view, order_views, owned_order
from api.routing import Router
from api.streams import Streams, streams_of
from models.orders import CustomerEvent
from models.types import Service
from services import events

router = Router(tags=["orders"])

SEND_SECONDS = 10.0
RETRY_MILLISECONDS = (2000, 4000)  # at random, so that a restart does not bring everybody back in one moment
REPLAY = 500
MAX_ID_DIGITS = 18

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`snapshot`, then the events after `Last-Event-ID`, then live",
        "content": {"text/event-stream": {"example": "id: 7\r\nevent: order.confirmed\r\ndata: {…}\r\n\r\n"}},
    }
}
_FINISHED: dict[int | str, dict[str, Any]] = {
    204: {"description": "The order's story is told and this client has heard it all: do not reconnect"}
}


class EventStream(EventSourceResponse):
    """A response that gives up on a reader who takes nothing for SEND_SECONDS."""

    def __init__(self, content: AsyncIterator[ServerSentEvent], heartbeat_seconds: float) -> None:
        super().__init__(
            content,
            headers={"Cache-Control": "no-store"},
            ping=heartbeat_seconds,
            ping_message_factory=lambda: ServerSentEvent(comment="ping"),
            send_timeout=SEND_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("A stream's reader has stopped reading: dropped")


@dataclass(frozen=True)
class Opening:
    """What a connection begins with, read in one transaction before the stream starts; a stream holds none."""

    customer_id: UUID
    snapshot: Any
    live_after: int
    resync: bool = False
    order_id: UUID | None = None
    replay: Sequence[CustomerEvent] = field(default=())
    finished: bool = False  # nothing will follow the replay


async def last_event_id(
    header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    query: Annotated[str | None, Query(alias="lastEventId", description="for clients that set no headers")] = None,
) -> str | None:
    """Where the client stopped. A browser's reconnect sends the header, which is newer than the address."""
    return header or query or None


LastEventId = Annotated[str | None, Depends(last_event_id)]
LIMITED = [Depends(limit("streams", 300, 60, by="user"))]


@router.get(
    "/api/orders/events",
    response_model=None,
    response_class=EventSourceResponse,
    responses=_STREAM,
    dependencies=LIMITED,
)
async def all_orders(user: CurrentUser, position: LastEventId, resources: ResourcesDep) -> Response:
    """What happens to my orders; the stream stays open. The snapshot is `{orders, lastSeq}`: those still going on."""
    async with resources.sessions[Service.ORDERS].begin() as session:
        opening = await _open_all(session, user, position)
    return _respond(resources, user, opening)


@router.get(
    "/api/orders/{order_id}/events",
    response_model=None,
    response_class=EventSourceResponse,
    responses=_STREAM | _FINISHED,
    dependencies=LIMITED,
)
async def one_order(order_id: str, user: CurrentUser, position: LastEventId, resources: ResourcesDep) -> Response:
    """What happens to one order, until it has ended or is confirmed and paid. The snapshot is the order."""
    async with resources.sessions[Service.ORDERS].begin() as session:
        opening = await _open_one(session, order_id, user, position)
    if opening.finished and not opening.replay:
        return Response(status_code=204)
    return _respond(resources, user, opening)


async def _open_all(session: AsyncSession, user: Principal, position: str | None) -> Opening:
    # The newest seq first: what is committed after this line is in the snapshot, or sent as an event, or both.
    last = await events.last_seq(session, user.user_id)
    start, resync = _start(position, last)
    found = await events.open_orders(session, user.user_id)
    views = await order_views(session, found, staff=user.role.is_staff)
    snapshot = {"orders": [_json(view) for view in views], "lastSeq": last}
    return Opening(user.user_id, snapshot, live_after=start, resync=resync)


async def _open_one(session: AsyncSession, order_id: str, user: Principal, position: str | None) -> Opening:
    order = await owned_order(session, order_id, user.user_id, staff=user.role.is_staff)
    last = await events.last_seq(session, order.customer_id)
    finished = events.is_finished(order.status, order.payment_status)
    start, resync = _start(position, last)
    if finished and position is None:
        # Its last event all the same: with that event's id the client's next attempt is told not to come back.
        start = await events.last_seq_of_order(session, order.id) - 1
    replay = await events.after(session, order.customer_id, start, order_id=order.id, limit=REPLAY)
    return Opening(
        order.customer_id,
        _json(await load_order_view(session, order.id, staff=user.role.is_staff)),
        live_after=replay[-1].seq if len(replay) == REPLAY else last,
        resync=resync,
        order_id=order.id,
        replay=replay,
        finished=finished,
    )


def _start(position: str | None, last: int) -> tuple[int, bool]:
    """The seq to go on after, and whether the client's own was none of ours."""
    if position is None:
        return last, False
    if position.isascii() and position.isdigit() and len(position) <= MAX_ID_DIGITS and int(position) <= last:
        return int(position), False
    return 0, True


def _respond(resources: Resources, user: Principal, opening: Opening) -> Response:
    stream = _stream(streams_of(resources), user, opening)
    return EventStream(stream, resources.settings.stream_heartbeat_seconds)


async def _stream(streams: Streams, user: Principal, opening: Opening) -> AsyncIterator[ServerSentEvent]:
    async with streams.open(user, opening.customer_id, opening.live_after) as live:
        yield _message(opening.snapshot, event="snapshot", retry=randint(*RETRY_MILLISECONDS))
        if opening.resync:
            yield _message({"reason": "unknown_last_event_id"}, event="resync")
        sent, finished = 0, opening.finished
        for event in opening.replay:
            yield _message(event.data, event=event.type, id=str(event.seq))
            sent, finished = event.seq, finished or _finishes(event)
        if finished:
            return
        async for event in live:
            if event.seq <= sent or (opening.order_id and event.order_id != opening.order_id):
                continue
            yield _message(event.data, event=event.type, id=str(event.seq))
            if opening.order_id and _finishes(event):
                return


def _finishes(event: CustomerEvent) -> bool:
    return events.is_finished(event.data["status"], event.data["paymentStatus"])


def _message(data: Any, **fields: Any) -> ServerSentEvent:
    """`data` as JSON on one line: whatever is in it cannot start a field or an event of its own."""
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), **fields)


def _json(view: Any) -> Any:
    return view.model_dump(mode="json", by_alias=True)
