"""The API's addresses: each names its operation, reads its parameters, hands on."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from processor import commands, intents, payment_methods, refunds, search
from processor.context import Context
from processor.errors import Reply
from processor.forms import JSON
from processor.listing import CHARGES, INTENTS, REFUNDS
from processor.params import Params
from processor.pipeline import Pipeline, Work

router = APIRouter(prefix="/v1")


def _pipeline(request: Request) -> Pipeline:
    pipeline: Pipeline = request.app.state.pipeline
    return pipeline


PipelineDep = Annotated[Pipeline, Depends(_pipeline)]


@router.post("/payment_intents")
async def create_intent(request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(intents.create, command=commands.read_create(raw))

    return await pipeline.write(request, "create", "payment_intent", prepare)


@router.get("/payment_intents")
async def list_intents(request: Request, pipeline: PipelineDep) -> Response:
    return await pipeline.read(request, "list", "payment_intent", INTENTS.page)


@router.get("/payment_intents/search")
async def search_intents(request: Request, pipeline: PipelineDep) -> Response:
    work = partial(search.search, lag=request.app.state.settings.search_lag)
    return await pipeline.read(request, "search", "payment_intent", work)


@router.get("/payment_intents/{intent_id}")
async def retrieve_intent(intent_id: str, request: Request, pipeline: PipelineDep) -> Response:
    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("client_secret", "expand"))
        return await INTENTS.one(context, intent_id)

    return await pipeline.read(request, "retrieve", "payment_intent", work, intent_id)


@router.post("/payment_intents/{intent_id}")
async def update_intent(intent_id: str, request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(intents.update, intent_id=intent_id, command=commands.read_update(raw))

    return await pipeline.write(request, "update", "payment_intent", prepare, intent_id)


@router.post("/payment_intents/{intent_id}/confirm")
async def confirm_intent(intent_id: str, request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(intents.confirm, intent_id=intent_id, command=commands.read_confirm(raw))

    return await pipeline.write(request, "confirm", "payment_intent", prepare, intent_id)


@router.post("/payment_intents/{intent_id}/capture")
async def capture_intent(intent_id: str, request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(intents.capture, intent_id=intent_id, command=commands.read_capture(raw))

    return await pipeline.write(request, "capture", "payment_intent", prepare, intent_id)


@router.post("/payment_intents/{intent_id}/cancel")
async def cancel_intent(intent_id: str, request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(intents.cancel, intent_id=intent_id, reason=commands.read_cancel(raw))

    return await pipeline.write(request, "cancel", "payment_intent", prepare, intent_id)


@router.post("/refunds")
async def create_refund(request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(refunds.create, command=commands.read_refund(raw))

    return await pipeline.write(request, "refund", "refund", prepare)


@router.get("/refunds")
async def list_refunds(request: Request, pipeline: PipelineDep) -> Response:
    return await pipeline.read(request, "list", "refund", REFUNDS.page)


@router.get("/refunds/{refund_id}")
async def retrieve_refund(refund_id: str, request: Request, pipeline: PipelineDep) -> Response:
    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return await REFUNDS.one(context, refund_id)

    return await pipeline.read(request, "retrieve", "refund", work)


@router.post("/refunds/{refund_id}")
async def update_refund(refund_id: str, request: Request, pipeline: PipelineDep) -> Response:
    def prepare(raw: JSON) -> Work:
        return partial(refunds.update, refund_id=refund_id, changes=refunds.read_update(raw))

    return await pipeline.write(request, "update", "refund", prepare)


@router.get("/charges")
async def list_charges(request: Request, pipeline: PipelineDep) -> Response:
    return await pipeline.read(request, "list", "charge", CHARGES.page)


@router.get("/charges/{charge_id}")
async def retrieve_charge(charge_id: str, request: Request, pipeline: PipelineDep) -> Response:
    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return await CHARGES.one(context, charge_id)

    return await pipeline.read(request, "retrieve", "charge", work)


@router.get("/payment_methods/{method_id}")
async def retrieve_method(method_id: str, request: Request, pipeline: PipelineDep) -> Response:
    async def work(context: Context, raw: JSON) -> Reply:
        Params(raw, ("expand",))
        return Reply(200, await payment_methods.retrieve(context, method_id))

    return await pipeline.read(request, "retrieve", "payment_method", work)
