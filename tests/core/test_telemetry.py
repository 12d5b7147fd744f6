"""Spans leave the process for the address that is set, and only then; each in a process of its own."""

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROGRAM = textwrap.dedent(
    """
    import asyncio, json, sys
    import httpx
    from opentelemetry import trace
    from core.settings import Settings
    from core.telemetry import configure_telemetry, current_trace_id, flush_telemetry

    async def main(endpoint, target):
        configure_telemetry(Settings(otlp_endpoint=endpoint), "probe")
        configure_telemetry(Settings(otlp_endpoint=endpoint), "again")
        with trace.get_tracer("test").start_as_current_span("outer"):
            async with httpx.AsyncClient(headers={"Authorization": "Bearer canary"}) as http:
                sent = (await http.get(target + "/echo?email=canary")).text
            print(json.dumps({"trace": current_trace_id(), "sent": sent}))
        flush_telemetry()

    asyncio.run(main(sys.argv[1], sys.argv[2]))
    """
)


class Receiver:
    """Takes OTLP over HTTP and answers any other path with the traceparent that came with it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if head.startswith("post /v1/traces"):
            self.raw += body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        answer = headers.get("traceparent", "").encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    async with await asyncio.start_server(found.answer, "127.0.0.1", 0) as server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found


async def run(endpoint: str, target: str) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, endpoint, target, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    answer: dict[str, str] = json.loads(output)
    return answer


async def test_spans_are_posted_as_otlp_with_one_trace_id() -> None:
    async with receiver() as collector:
        told = await run(collector.url, collector.url)
    outer = next(span for span in collector.spans if span.name == "outer")
    call = next(span for span in collector.spans if span.name == "GET")
    assert outer.trace_id.hex() == call.trace_id.hex() == told["trace"]
    assert call.parent_span_id == outer.span_id
    assert told["sent"] == f"00-{told['trace']}-{call.span_id.hex()}-01"
    assert b"mercato-probe" in collector.raw
    assert b"canary" not in collector.raw


async def test_without_an_endpoint_there_is_a_trace_id_and_nothing_leaves() -> None:
    async with receiver() as target:
        told = await run("", target.url)
    assert len(told["trace"]) == 32
    assert told["trace"] in told["sent"]
    assert told["sent"].endswith("-00")
    assert target.spans == []
