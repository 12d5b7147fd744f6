"""GET /v1/payment_intents/search: a subset of Stripe's query language, compiled to SQL with parameters.

    metadata['order_id']:'7' AND status:'succeeded'     amount>1000 OR -currency:'usd'     metadata['k']:null
`:` is equality, `~` a substring, `<` `<=` `>` `>=` compare numbers, `-` negates; AND and OR do not mix.
"""

import re
from typing import Any

from processor.context import Context
from processor.errors import Reply, StripeError, invalid_request
from processor.forms import JSON
from processor.params import Params

CLAUSE = re.compile(
    r"""\s*(?P<negated>-)?\s*
    (?P<field>metadata\[(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)")\]|[a-z_]+)
    \s*(?P<operator>:|~|<=|>=|<|>)\s*
    (?P<value>null|-?\d{1,15}|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""",
    re.VERBOSE,
)
JOINT = re.compile(r"\s+(AND|OR)\s+|\s+", re.IGNORECASE)
TEXTS = ("status", "currency", "customer")
NUMBERS = ("amount", "created")
MOST_CLAUSES = 10


async def search(context: Context, raw: JSON, lag: int) -> Reply:
    """One page, newest first. `lag`: seconds that an intent must be old to be found, as Stripe's index is late."""
    params = Params(raw, ("query", "limit", "page", "expand"))
    limit = params.integer("limit", least=1, most=100) or 10
    values: list[Any] = [context.account, context.now - lag]
    condition = compile_query(params.required_text("query"), values)
    before = ""
    if page := params.text("page"):
        if not page.isdecimal() or len(page) > 18:
            raise invalid_request("Invalid page.", param="page")
        values.append(int(page))
        before = f"AND seq < ${len(values)}"
    rows = await context.connection.fetch(
        f"""
        SELECT seq, document FROM processor.payment_intent
        WHERE account = $1 AND created <= $2 AND ({condition}) {before} ORDER BY seq DESC LIMIT {limit + 1}
        """,
        *values,
    )
    more = len(rows) > limit
    body = {
        "object": "search_result",
        "data": [row["document"] for row in rows[:limit]],
        "has_more": more,
        "next_page": str(rows[limit - 1]["seq"]) if more else None,
        "url": "/v1/payment_intents/search",
    }
    return Reply(200, body)


def compile_query(query: str, values: list[Any]) -> str:
    """The SQL condition for `query`; its parameters are appended to `values`. Raises StripeError 400."""
    clauses: list[str] = []
    joints: set[str] = set()
    position = 0
    while True:
        match = CLAUSE.match(query, position)
        if match is None or len(clauses) == MOST_CLAUSES:
            raise _unreadable(query)
        clauses.append(_condition(match, query, values))
        position = match.end()
        if not query[position:].strip():
            break
        joint = JOINT.match(query, position)
        if joint is None:
            raise _unreadable(query)
        joints.add((joint[1] or "AND").upper())
        position = joint.end()
    if len(joints) > 1:
        raise invalid_request("AND and OR cannot be combined in one search query.", param="query")
    return f" {joints.pop() if joints else 'AND'} ".join(clauses)


def _condition(match: re.Match[str], query: str, values: list[Any]) -> str:
    condition = _positive(match, query, values)
    # bare when positive, so that the index on metadata serves it
    return f"NOT coalesce({condition}, false)" if match["negated"] else f"({condition})"


def _positive(match: re.Match[str], query: str, values: list[Any]) -> str:
    field, operator, value = match["field"], match["operator"], match["value"]
    quoted = value[0] in "'\""
    text = _unescaped(value[1:-1]) if quoted else value

    def put(item: Any) -> str:
        values.append(item)
        return f"${len(values)}"

    key = match["single"] if match["single"] is not None else match["double"]
    if key is not None:
        return _on_metadata(_unescaped(key), operator, None if value == "null" else text, put, query)
    if field in NUMBERS and operator != "~" and re.fullmatch(r"-?\d{1,15}", text):
        column = "created" if field == "created" else "(document ->> 'amount')::bigint"
        return f"{column} {'=' if operator == ':' else operator} {put(int(text))}"
    if field in TEXTS and value == "null" and operator == ":":
        return f"document ->> '{field}' IS NULL"
    if field in TEXTS and quoted and operator == ":":
        return f"document ->> '{field}' = {put(text)}::text"
    if field in TEXTS and quoted and operator == "~":
        return f"strpos(document ->> '{field}', {put(text)}::text) > 0"
    raise _unreadable(query)


def _on_metadata(key: str, operator: str, text: str | None, put: Any, query: str) -> str:
    if text is None and operator == ":":
        return f"NOT metadata ? {put(key)}::text"
    if text is not None and operator == ":":
        return f"metadata @> {put({key: text})}::jsonb"
    if text is not None and operator == "~":
        return f"strpos(metadata ->> {put(key)}::text, {put(text)}::text) > 0"
    raise _unreadable(query)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _unreadable(query: str) -> StripeError:
    return invalid_request(f"We were unable to parse your search query: {query[:200]}", param="query")
