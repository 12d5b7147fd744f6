"""Lists, search and suggestions: the reads of the catalogue that everybody makes (docs/adr/0011-browsing.md)."""

import re
from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.catalog import Browse, ProductPage, Suggestion
from models.errors import InvalidRequest
from services.catalog import COLUMNS, stocked_product

RANKED = 2000  # matches that are weighed against each other; of a search met by more, no order by relevance is told
GUESSES = 5  # words that one with a typing error may stand for

_TOKEN = re.compile(r"[^\W_]+")

# SELECT makes each of them once a statement; a plan that is kept for any parameters would make them for every row.
_TYPED = "(SELECT websearch_to_tsquery('english', :search) || websearch_to_tsquery('simple', :search))"
_MEANT = "(SELECT to_tsquery('english', :search))"  # words of the vocabulary, joined by `_guess`

_COUNT_LISTED = """SELECT coalesce(sum(products), 0)::bigint FROM catalog.product_counts
                   WHERE CAST(:category AS text) IS NULL OR category = :category"""
_COUNT_FOUND = "SELECT count(*) FROM catalog.products p WHERE p.active AND p.search @@ {query}{within}"

# The matches of one word are counted already; the index knows none, one or (as a SKU and as a word) two for it.
_COUNT_TYPED = """
    WITH counted AS MATERIALIZED (
        SELECT sum(products)::bigint AS products FROM catalog.word_counts
        WHERE lexeme = ANY (tsvector_to_array(to_tsvector('english', :search) || to_tsvector('simple', :search)))
          AND (CAST(:category AS text) IS NULL OR category = :category)
        GROUP BY lexeme HAVING sum(products) > 0
    )
    SELECT CASE
        WHEN numnode(websearch_to_tsquery('simple', :search)) = 1 AND (SELECT count(*) FROM counted) < 2
        THEN coalesce((SELECT products FROM counted), 0)
        ELSE ({found}) END
"""

_GUESS = text("""
    SELECT array(SELECT catalog.words_like(typed, :guesses)) AS words
    FROM unnest(CAST(:typed AS text[])) WITH ORDINALITY AS t (typed, nth) ORDER BY nth
""")

# Each part is run only when the ones before it have found too little.
_SUGGEST = text("""
    WITH beginning AS MATERIALIZED (
        SELECT 1 AS class, id, name, category, image_url FROM catalog.products
        WHERE active AND lower(name) COLLATE "C" >= lower(:search)
          AND lower(name) COLLATE "C" < lower(:search) || chr(1114111)
        ORDER BY lower(name) COLLATE "C", id LIMIT :limit
    ), containing AS MATERIALIZED (
        SELECT 2 AS class, id, name, category, image_url FROM catalog.products
        WHERE (SELECT count(*) FROM beginning) < :limit
          AND active AND to_tsvector('pg_catalog.simple', name) @@ CAST(CAST(:words AS text) AS tsquery)
        LIMIT :candidates
    ), meant AS MATERIALIZED (
        SELECT string_agg(quote_literal(word), ' | ')::tsquery AS words
        FROM catalog.words_like(:last, :guesses) AS word
        WHERE length(:last) >= 3 AND NOT EXISTS (SELECT FROM beginning) AND NOT EXISTS (SELECT FROM containing)
    ), alike AS MATERIALIZED (
        SELECT 3 AS class, id, name, category, image_url FROM catalog.products
        WHERE active AND to_tsvector('pg_catalog.simple', name) @@ (SELECT words FROM meant)
        LIMIT :candidates
    ), found AS (
        SELECT DISTINCT ON (id) *
        FROM (SELECT * FROM beginning UNION ALL SELECT * FROM containing UNION ALL SELECT * FROM alike) AS every
        ORDER BY id, class
    )
    SELECT id, name, category, image_url FROM found
    ORDER BY class, CASE WHEN class = 3 THEN catalog.word_similarity(:search, name) END DESC,
             CASE WHEN class > 1 THEN length(name) END, lower(name) COLLATE "C", id
    LIMIT :limit
""")
_SUGGEST_CANDIDATES = 200


@dataclass(frozen=True)
class _Order:
    """Columns of one index, read forwards or backwards."""

    columns: tuple[str, ...]
    descending: bool = False

    def sql(self, *, reverse: bool = False) -> str:
        direction = " DESC" if self.descending != reverse else ""
        return ", ".join(f"{column}{direction}" for column in self.columns)


_ORDERS = {
    "name": _Order(("p.name", "p.id")),
    "-name": _Order(("p.name", "p.id"), descending=True),
    "price": _Order(("p.price_amount", "p.id")),
    "-price": _Order(("p.price_amount", "p.id"), descending=True),
    "newest": _Order(("p.created_at", "p.id"), descending=True),
}


async def browse(session: AsyncSession, query: Browse) -> ProductPage:
    """One page of what is for sale. Words as typed go first; only when nothing has them are typing errors forgiven.

    `total` is exact. Up to RANKED matches come by relevance, more of them by name.

    Raises:
        InvalidRequest: `unknown_category`.
    """
    if not query.search:
        return await _page(session, query, await _count(session, query, _COUNT_LISTED), None)
    found = _COUNT_FOUND.format(query=_TYPED, within=_within(query))
    total = await _count(session, query, _COUNT_TYPED.format(found=found), query.search)
    if total:
        return await _page(session, query, total, _TYPED, query.search)
    meant = await _guess(session, query.search)
    if not meant:
        return ProductPage(items=[], total=0)
    total = await _count(session, query, _COUNT_FOUND.format(query=_MEANT, within=_within(query)), meant)
    return await _page(session, query, total, _MEANT, meant)


async def suggest(session: AsyncSession, search: str, limit: int = 8) -> list[Suggestion]:
    """Products for what has been typed so far: names that begin with it, then names with words that do, then, from
    three letters on, names with words that look like the last one."""
    tokens = _TOKEN.findall(search.lower())
    parameters = {
        "search": search,
        "words": " & ".join(f"'{token}'" for token in tokens) + ":*" if tokens else None,
        "last": tokens[-1] if tokens else "",
        "limit": limit,
        "candidates": _SUGGEST_CANDIDATES,
        "guesses": GUESSES,
    }
    rows = await (await session.connection()).execute(_SUGGEST, parameters)
    return [Suggestion(**row) for row in rows.mappings()]


async def _count(session: AsyncSession, query: Browse, counting: str, search: str | None = None) -> int:
    """How many there are in all; whether the category exists is found out on the way."""
    statement = text(f"""
        SELECT CAST(:category AS text) IS NULL OR EXISTS (SELECT FROM catalog.categories WHERE slug = :category),
               ({counting})
    """)
    parameters = {"category": query.category} | ({"search": search} if search else {})
    known, total = (await (await session.connection()).execute(statement, parameters)).one()
    if not known:
        raise InvalidRequest(f"There is no category {query.category}.", code="unknown_category")
    return int(total)


async def _guess(session: AsyncSession, search: str) -> str:
    """Known words for the typed ones, as a query: any of the likely ones for each. Those like no word are left out."""
    typed = [token for token in _TOKEN.findall(search.lower()) if len(token) >= 3]
    if not typed:
        return ""
    rows = await (await session.connection()).execute(_GUESS, {"typed": typed, "guesses": GUESSES})
    return " & ".join("(" + " | ".join(f"'{word}'" for word in row.words) + ")" for row in rows if row.words)


async def _page(
    session: AsyncSession, query: Browse, total: int, matching: str | None, search: str | None = None
) -> ProductPage:
    """Finds the ids on indexes alone, then reads the rows. What shoppers send goes in as parameters only."""
    offset = (query.page - 1) * query.page_size
    limit = min(query.page_size, total - offset)
    if limit <= 0:
        return ProductPage(items=[], total=total)
    parameters = {"search": search, "category": query.category, "offset": offset, "limit": limit}
    if matching and total <= RANKED:
        statement = _ranked(query, matching)
    else:
        # a deep page is read from the end of the list that is nearer
        from_end = offset > total // 2
        if from_end:
            parameters["offset"] = total - offset - limit
        statement = _walked(query, matching, from_end)
    names = statement.compile().params
    rows = await (await session.connection()).execute(statement, {name: parameters[name] for name in names})
    return ProductPage(items=[stocked_product(row) for row in rows.mappings()], total=total)


def _ranked(query: Browse, matching: str) -> TextClause:
    """Few matches: all of them from the search index, then sorted."""
    if query.sort in (None, "relevance"):
        order = f"ts_rank(p.search, {matching}) DESC, p.id"
    else:
        order = _ORDERS[query.sort].sql()
    return _with_rows(f"p.search @@ {matching}{_within(query)}", order, order)


def _walked(query: Browse, matching: str | None, from_end: bool) -> TextClause:
    """Everything, or so many matches that going through the list in its order meets a page of them soon."""
    order = _ORDERS.get(query.sort or "name", _ORDERS["name"])
    # CASE hides the condition from the search index, which would bring all the matches before the first is sorted
    where = f"CASE WHEN p.search @@ {matching} THEN true ELSE false END" if matching else "true"
    return _with_rows(where + _within(query), order.sql(reverse=from_end), order.sql())


def _within(query: Browse) -> str:
    return " AND p.category = :category" if query.category else ""


def _with_rows(where: str, pick: str, order: str) -> TextClause:
    return text(f"""
        WITH picked AS MATERIALIZED (
            SELECT p.id FROM catalog.products p WHERE p.active AND {where} ORDER BY {pick} LIMIT :limit OFFSET :offset
        )
        SELECT {COLUMNS} FROM picked JOIN catalog.products p USING (id) JOIN catalog.stock s ON s.product_id = p.id
        ORDER BY {order}
    """)
