"""A platform of its own, so that killing its workers disturbs nobody else's tests."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chaos.shop import Shop
from tests.stack import Platform, Stack, start_platform, start_processor

# A killed worker's work counts as lost after two seconds instead of ten.
SOON = {
    "MERCATO_ATTEMPT_SECONDS": "2",
    "MERCATO_WORKFLOW_TASK_SECONDS": "2",
    "MERCATO_PROCESSOR_TIMEOUT_SECONDS": "1.5",
}


@pytest.fixture(scope="package")
def arena() -> Iterator[Platform]:
    stack = Stack()
    try:
        database = stack.make_database("arena")
        yield start_platform(stack, database, start_processor(stack, database), SOON)
    finally:
        stack.close()


@pytest.fixture
async def shop(arena: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(arena) as shop:
        yield shop
