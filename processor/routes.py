"""The API's addresses: each names its operation, reads its parameters, hands on."""

from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from processor import commands, endpoints, intents, payment_methods, refunds, search
from processor.context import Context
from processor.errors import Reply
from processor.forms import JSON
from processor.listing import CHARGES, INTENTS, REFUNDS, Listing
from processor.params import Params
from processor.pipeline import Pipeline, Work
from processor.server import route


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline = request.app.state.pipeline
    return pipeline


async def create_intent(request: Request) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(intents.create, command=commands.read_create(raw))

    return await _pipeline(request).write(request, "create", "payment_intent", prepare)


async def list_intents(request: Request) -> Response:
    return await _pipeline(request).read(request, "list", "payment_intent", INTENTS.page)


async def search_intents(request: Request) -> Response:
    work = partial(search.search, lag=request.app.state.settings.search_lag)
    return await _pipeline(request).read(request, "search", "payment_intent", work)


async def retrieve_intent(request: Request) -> Response:
    intent_id = request.path_params["intent_id"]

    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("client_secret", "expand"))
        return await INTENTS.one(context, intent_id)

    return await _pipeline(request).read(request, "retrieve", "payment_intent", work, intent_id)


async def update_intent(request: Request) -> Response:
    intent_id = request.path_params["intent_id"]

    def prepare(raw: JSON) -> Work:
        return partial(intents.update, intent_id=intent_id, command=commands.read_update(raw))

    return await _pipeline(request).write(request, "update", "payment_intent", prepare, intent_id)


async def confirm_intent(request: Request) -> Response:
    intent_id = request.path_params["intent_id"]

    def prepare(raw: JSON) -> Work:
        return partial(intents.confirm, intent_id=intent_id, command=commands.read_confirm(raw))

    return await _pipeline(request).write(request, "confirm", "payment_intent", prepare, intent_id)


async def capture_intent(request: Request) -> Response:
    intent_id = request.path_params["intent_id"]

    def prepare(raw: JSON) -> Work:
        return partial(intents.capture, intent_id=intent_id, command=commands.read_capture(raw))

    return await _pipeline(request).write(request, "capture", "payment_intent", prepare, intent_id)


async def cancel_intent(request: Request) -> Response:
    intent_id = request.path_params["intent_id"]

    def prepare(raw: JSON) -> Work:
        return partial(intents.cancel, intent_id=intent_id, reason=commands.read_cancel(raw))

    return await _pipeline(request).write(request, "cancel", "payment_intent", prepare, intent_id)


async def create_refund(request: Request) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(refunds.create, command=commands.read_refund(raw))

    return await _pipeline(request).write(request, "refund", "refund", prepare)


async def list_refunds(request: Request) -> Response:
    return await _pipeline(request).read(request, "list", "refund", REFUNDS.page)


async def retrieve_refund(request: Request) -> Response:
    refund_id = request.path_params["refund_id"]

    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return await REFUNDS.one(context, refund_id)

    return await _pipeline(request).read(request, "retrieve", "refund", work)


async def update_refund(request: Request) -> Response:
    refund_id = request.path_params["refund_id"]

    def prepare(raw: JSON) -> Work:
        return partial(refunds.update, refund_id=refund_id, changes=refunds.read_update(raw))

    return await _pipeline(request).write(request, "update", "refund", prepare)


async def list_charges(request: Request) -> Response:
    return await _pipeline(request).read(request, "list", "charge", CHARGES.page)


async def retrieve_charge(request: Request) -> Response:
    charge_id = request.path_params["charge_id"]

    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return await CHARGES.one(context, charge_id)

    return await _pipeline(request).read(request, "retrieve", "charge", work)


async def retrieve_method(request: Request) -> Response:
    method_id = request.path_params["method_id"]

    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return Reply(200, await payment_methods.retrieve(context, method_id))

    return await _pipeline(request).read(request, "retrieve", "payment_method", work)


async def list_events(request: Request) -> Response:
    return await _pipeline(request).read(request, "list", "event", EVENTS.page)


async def retrieve_event(request: Request) -> Response:
    event_id = request.path_params["event_id"]

    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return await EVENTS.one(context, event_id)

    return await _pipeline(request).read(request, "retrieve", "event", work)


async def list_endpoints(request: Request) -> Response:
    return await _pipeline(request).read(request, "list", "webhook_endpoint", endpoints.ENDPOINTS.page)


async def retrieve_endpoint(request: Request) -> Response:
    endpoint_id = request.path_params["endpoint_id"]

    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return await endpoints.ENDPOINTS.one(context, endpoint_id)

    return await _pipeline(request).read(request, "retrieve", "webhook_endpoint", work)


async def create_endpoint(request: Request) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(endpoints.create, params=Params(raw, endpoints.FIELDS))

    return await _changed_endpoint(request, prepare)


async def update_endpoint(request: Request) -> Response:
    endpoint_id = request.path_params["endpoint_id"]

    def prepare(raw: JSON) -> Work:
        return partial(endpoints.update, endpoint_id=endpoint_id, params=Params(raw, endpoints.FIELDS))

    return await _changed_endpoint(request, prepare)


async def delete_endpoint(request: Request) -> Response:
    def prepare(_: JSON) -> Work:
        return partial(endpoints.delete, endpoint_id=request.path_params["endpoint_id"])

    return await _changed_endpoint(request, prepare)


async def _changed_endpoint(request: Request, prepare: Callable[[JSON], Work]) -> Response:
    answer = await _pipeline(request).write(request, "endpoint", "webhook_endpoint", prepare)
    await request.app.state.outbox.load()
    return answer


EVENTS = Listing("processor.event", "event", "/v1/events", ("type",))

ROUTES = (
    route("GET", "/v1/events", list_events),
    route("GET", "/v1/events/{event_id}", retrieve_event),
    route("POST", "/v1/webhook_endpoints", create_endpoint),
    route("GET", "/v1/webhook_endpoints", list_endpoints),
    route("GET", "/v1/webhook_endpoints/{endpoint_id}", retrieve_endpoint),
    route("POST", "/v1/webhook_endpoints/{endpoint_id}", update_endpoint),
    route("DELETE", "/v1/webhook_endpoints/{endpoint_id}", delete_endpoint),
    route("POST", "/v1/payment_intents", create_intent),
    route("GET", "/v1/payment_intents", list_intents),
    route("GET", "/v1/payment_intents/search", search_intents),
    route("GET", "/v1/payment_intents/{intent_id}", retrieve_intent),
    route("POST", "/v1/payment_intents/{intent_id}", update_intent),
    route("POST", "/v1/payment_intents/{intent_id}/confirm", confirm_intent),
    route("POST", "/v1/payment_intents/{intent_id}/capture", capture_intent),
    route("POST", "/v1/payment_intents/{intent_id}/cancel", cancel_intent),
    route("POST", "/v1/refunds", create_refund),
    route("GET", "/v1/refunds", list_refunds),
    route("GET", "/v1/refunds/{refund_id}", retrieve_refund),
    route("POST", "/v1/refunds/{refund_id}", update_refund),
    route("GET", "/v1/charges", list_charges),
    route("GET", "/v1/charges/{charge_id}", retrieve_charge),
    route("GET", "/v1/payment_methods/{method_id}", retrieve_method),
)
