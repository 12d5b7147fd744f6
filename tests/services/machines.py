"""What the state machines share: an event loop and sessions of their own, since hypothesis drives them from outside."""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import text

from core.db import Sessions, make_engine, make_sessions

T = TypeVar("T")

# The same examples each time, so that `make test` says the same of the same code; LONG looks for new ones.
QUICK = settings(
    max_examples=8,
    derandomize=True,
    stateful_step_count=15,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, derandomize=False, max_examples=400, stateful_step_count=60)


class ServiceMachine(RuleBasedStateMachine):
    """`url` is the address of the service's own role; set before it is run."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.engine = make_engine(self.url, pool_size=4)
        self.sessions: Sessions = make_sessions(self.engine)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def both(self, first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any]) -> list[Any]:
        """The two at once; what they raise is an answer, too."""

        async def at_once() -> list[Any]:
            return await asyncio.gather(first, second, return_exceptions=True)

        return self.run(at_once())

    def rows(self, statement: str, **parameters: Any) -> list[Any]:
        async def read() -> list[Any]:
            async with self.sessions() as session:
                return list((await (await session.connection()).execute(text(statement), parameters)).all())

        return self.run(read())

    def teardown(self) -> None:
        self.run(self.engine.dispose())
        self.loop.close()
