"""`kill -9` of a server under test, and a client of the one that keeps the histories."""

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from cli import servers
from tests.e2e.shopper import eventually
from tests.stack import Platform


async def kill_server(platform: Platform, name: str) -> None:
    """Kill it and its children, and wait until the supervisor has brought it back."""
    supervised = platform.stack.supervisor.programs[name]
    before = supervised.process.pid
    assert before is not None
    servers.kill(before)

    async def is_back() -> bool:
        return supervised.process.pid != before and supervised.state == "ready"

    await eventually(is_back)


async def temporal_of(platform: Platform) -> Client:
    return await Client.connect(platform.temporal_address, data_converter=pydantic_data_converter)
