"""One shop for the folder, on the platform of the run."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.shop import Shop
from tests.stack import Platform


@pytest.fixture(scope="package")
async def shop(platform: Platform) -> AsyncIterator[Shop]:
    async with Shop.open(platform) as shop:
        yield shop
