"""Fixtures of every test: servers are started when first asked for, once a run, on free ports."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.stack import Platform, Running, Stack, processor_address, start_platform, start_processor

LONG_TESTS = os.environ.get("MERCATO_LONG_TESTS") == "1"

# A test run must not meet the servers of somebody's `make up`: what the shell says about them is forgotten.
for name in [name for name in os.environ if name.startswith("MERCATO_")]:
    del os.environ[name]

# Nor is it to inherit a deaf ear: a shell that runs us in its background ignores Ctrl-C, and so would our children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take minutes run when they are asked for."""
    for item in items:
        if not LONG_TESTS and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: set MERCATO_LONG_TESTS=1"))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Where the servers of this run live. For tests that need something the fixtures below do not give."""
    stack = Stack()
    yield stack
    stack.close()


@pytest.fixture(scope="session")
def make_database(stack: Stack) -> Callable[[str], str]:
    """`make_database("name")` makes a fresh migrated database and gives its owner's address."""
    return stack.make_database


@pytest.fixture(scope="session")
def database_url(stack: Stack) -> str:
    """The owner's address of a migrated database that tests share: bring your own ids and users."""
    return stack.make_database("shared")


@pytest.fixture(scope="session")
def redis_url(stack: Stack) -> str:
    return stack.redis_url


@pytest.fixture(scope="session")
def temporal_address(stack: Stack) -> str:
    return stack.temporal_address


@pytest.fixture(scope="session")
def platform_database_url(stack: Stack) -> str:
    """The owner's address of the database that the platform and its processor use, each in their own schemas."""
    return stack.make_database("platform")


@pytest.fixture(scope="session")
def processor(stack: Stack, platform_database_url: str) -> Running:
    return start_processor(stack, platform_database_url)


@pytest.fixture(scope="session")
def processor_url(processor: Running) -> str:
    """A running mock processor."""
    return processor_address(processor)


@pytest.fixture(scope="session")
def platform(stack: Stack, platform_database_url: str, processor: Running) -> Platform:
    """The whole platform as real processes, seeded."""
    return start_platform(stack, platform_database_url, processor)
