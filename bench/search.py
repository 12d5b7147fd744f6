"""Database time of lists, search and suggestions: each case through the real service, each of its statements explained.

The time of a case is the sum of EXPLAIN's planning and execution times of the statements that it makes, warm.
"""

import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlmodel.ext.asyncio.session import AsyncSession

from core.db import make_engine, make_sessions
from models.catalog import Browse
from services import browsing

ROUNDS = 7
BAR_MS = 10.0


@dataclass(frozen=True)
class Case:
    """`within_bar`: whether it is held to BAR_MS; docs/performance.md says of those that are not what they cost."""

    name: str
    ask: Callable[[AsyncSession], Awaitable[Any]]
    within_bar: bool = True


@dataclass(frozen=True)
class Explained:
    """`matches`: the total of a list, the length of suggestions. `plans`: of the last round, one a statement."""

    name: str
    statements: int
    matches: int
    median_ms: float
    worst_ms: float
    plans: list[dict[str, Any]]
    within_bar: bool


def _list(name: str, *, within_bar: bool = True, **query: Any) -> Case:
    return Case(name, lambda session: browsing.browse(session, Browse(**query)), within_bar)


def _suggest(typed: str) -> Case:
    return Case(f"suggest “{typed}”", lambda session: browsing.suggest(session, typed))


CASES = (
    _list("list, page 1"),
    _list("list, page 2500 (the middle)", page=2500),
    _list("list, page 5000 (the last)", page=5000),
    _list("list by price, dearest first", sort="-price"),
    _list("list, newest first, page 1000", sort="newest", page=1000),
    _list("category, page 1", category="books"),
    _list("category by price, page 200", category="books", sort="price", page=200),
    _list("rare words “merino scarf indigo”", search="merino scarf indigo"),
    _list("word “headphones”", search="headphones"),
    _list("common word “coffee” by price", search="coffee", sort="price"),
    _list("common word “graphite”", search="graphite"),
    _list("common word “two”", search="two"),
    _list("very common word “recyclable”", search="recyclable"),
    _list("very common word, page 50", search="recyclable", page=50),
    _list("very common word in a category", search="recyclable", category="toys"),
    _list("two common words “two graphite”", search="two graphite"),
    _list("two very common words “packaging recyclable”", search="packaging recyclable", within_bar=False),
    _list("typing error “haedphones”", search="haedphones"),
    _list("typing errors “wireles hedphones”", search="wireles hedphones"),
    _list("typing error in a common word “grafite”", search="grafite"),
    _list("nothing like it “zzqqxx”", search="zzqqxx"),
    _suggest("h"),
    _suggest("s"),
    _suggest("z"),
    _suggest("he"),
    _suggest("hea"),
    _suggest("headphon"),
    _suggest("hedphone"),
    _suggest("wireless he"),
    _suggest("graphite s"),
)


async def explain_all(url: str) -> list[Explained]:
    """Every case against the catalogue at `url` (the role of the catalogue)."""
    engine = make_engine(url, application="mercato-bench", pool_size=1)
    asked: list[tuple[str, Any]] = []
    event.listen(
        engine.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, parameters, _context, _many: asked.append((statement, parameters)),
    )
    try:
        async with make_sessions(engine)() as session:
            return [await _explain(session, case, asked) for case in CASES]
    finally:
        await engine.dispose()


async def _explain(session: AsyncSession, case: Case, asked: list[tuple[str, Any]]) -> Explained:
    asked.clear()
    answer = await case.ask(session)
    statements = list(asked)
    connection = await session.connection()
    rounds: list[float] = []
    for _ in range(ROUNDS):
        plans = []
        for statement, parameters in statements:
            explained = await connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters
            )
            plans.append(explained.scalar_one()[0])
        rounds.append(sum(plan["Planning Time"] + plan["Execution Time"] for plan in plans))
    await session.rollback()
    matches = answer.total if hasattr(answer, "total") else len(answer)
    return Explained(
        case.name, len(statements), matches, statistics.median(rounds), max(rounds), plans, case.within_bar
    )
