"""Traces: each request and workflow has an id; spans leave the process only where `MERCATO_OTLP_ENDPOINT` says."""

import random

import httpx
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, RequestInfo
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider, create_tracer_provider
from yarl import URL

from core.settings import Settings

_URL_ATTRIBUTES = ("http.url", "url.full")


def configure_telemetry(settings: Settings, service: str) -> None:
    """Make the tracer provider of this process; only the first call counts.

    It is the one that Temporal calls replay safe: its ids are derived from the workflow, and nothing is exported
    again during replay. Statements are traced without their parameters, calls without headers and query strings.
    """
    if isinstance(trace.get_tracer_provider(), ReplaySafeTracerProvider):
        return
    provider = create_tracer_provider(
        sampler=_sampler(settings),
        resource=Resource.create(
            {"service.name": f"mercato-{service}", "deployment.environment.name": settings.environment}
        ),
        shutdown_on_exit=False,  # whoever holds a Temporal client ends with flush_telemetry() and os._exit
    )
    if settings.otlp_endpoint:
        # a second HTTP client and its friends, imported only by who exports
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=5)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        AsyncPGInstrumentor().instrument(  # type: ignore[no-untyped-call]
            tracer_provider=provider
        )
        AioHttpClientInstrumentor().instrument(tracer_provider=provider, url_filter=_without_query)
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument(
        tracer_provider=provider, request_hook=_drop_query, async_request_hook=_drop_query_async
    )


def flush_telemetry(timeout_seconds: float = 2) -> None:
    """Send what is still buffered; returns after `timeout_seconds` at the latest."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, ReplaySafeTracerProvider):
        provider.force_flush(int(timeout_seconds * 1000))


def current_trace_id() -> str | None:
    """32 hexadecimal digits, or None outside a trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def trace_id_under(parent: Context | None = None) -> int:
    """The trace that something belongs to which begins under `parent` (None: the current context): that of the span
    there, else a new one."""
    above = trace.get_current_span(parent).get_span_context()
    return above.trace_id if above.is_valid else random.getrandbits(128) or 1


def unrecorded_span(parent: Context | None = None) -> Span:
    """A span that only has ids: what the tracer makes too when nothing is sampled, at a tenth of the cost."""
    span_id = random.getrandbits(64) or 1
    return trace.NonRecordingSpan(trace.SpanContext(trace_id_under(parent), span_id, is_remote=False))


def _sampler(settings: Settings) -> Sampler:
    """Without a place to send them spans are not recorded, but still have ids."""
    if not settings.otlp_endpoint:
        return ALWAYS_OFF
    return ParentBased(TraceIdRatioBased(settings.trace_sample_ratio))


def _drop_query(span: Span, request: RequestInfo) -> None:
    if span.is_recording():
        url = str(request.url.copy_with(query=None)) if isinstance(request.url, httpx.URL) else ""
        span.set_attributes(dict.fromkeys(_URL_ATTRIBUTES, url))


def _without_query(url: URL) -> str:
    return str(url.with_query(None))


async def _drop_query_async(span: Span, request: RequestInfo) -> None:
    _drop_query(span, request)
