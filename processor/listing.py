"""Lists: newest first, paged by the id of the last or first object seen, filtered by `created` and references."""

from dataclasses import dataclass

from processor.context import Context
from processor.errors import Reply, invalid_request, resource_missing
from processor.forms import JSON
from processor.params import Params, as_integer

COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
PAGING = ("limit", "starting_after", "ending_before", "created", "expand")


@dataclass(frozen=True)
class Listing:
    """A kind of object that can be listed: its table, its name in messages, its address, its filters (columns)."""

    table: str
    kind: str
    url: str
    filters: tuple[str, ...]

    async def page(self, context: Context, raw: JSON) -> Reply:
        """One page. Raises StripeError 400 for bad parameters or an unknown cursor."""
        params = Params(raw, (*PAGING, *self.filters, "customer_account", "transfer_group"))
        limit = params.integer("limit", least=1, most=100) or 10
        conditions, values = self._conditions(params)
        values.insert(0, context.account)
        order = "DESC"
        for name, comparison in (("starting_after", "<"), ("ending_before", ">")):
            if cursor := params.text(name):
                values.append(await self._position(context, cursor, name))
                conditions.append(f"seq {comparison} ${len(values)}")
                order = "DESC" if name == "starting_after" else "ASC"
        where = " AND ".join(["account = $1", *conditions])
        rows = await context.connection.fetch(
            f"SELECT document FROM {self.table} WHERE {where} ORDER BY seq {order} LIMIT {limit + 1}", *values
        )
        data = [row["document"] for row in rows[:limit]]
        if order == "ASC":
            data.reverse()
        return Reply(200, {"object": "list", "data": data, "has_more": len(rows) > limit, "url": self.url})

    async def one(self, context: Context, id_: str) -> Reply:
        """One object. Raises StripeError 404."""
        document: JSON | None = await context.connection.fetchval(
            f"SELECT document FROM {self.table} WHERE id = $1 AND account = $2", id_, context.account
        )
        if document is None:
            param = "intent" if self.kind == "payment_intent" else "id"
            raise resource_missing(self.kind, id_, param, 404)
        return Reply(200, document)

    def _conditions(self, params: Params) -> tuple[list[str], list[object]]:
        """SQL conditions whose parameters start at $2 (the account is $1)."""
        conditions: list[str] = []
        values: list[object] = []
        for name in self.filters:
            if value := params.text(name):
                values.append(value)
                conditions.append(f"{name} = ${len(values) + 1}")
        for comparison, moment in _created(params):
            values.append(moment)
            conditions.append(f"created {comparison} ${len(values) + 1}")
        return conditions, values

    async def _position(self, context: Context, id_: str, param: str) -> int:
        seq: int | None = await context.connection.fetchval(
            f"SELECT seq FROM {self.table} WHERE id = $1 AND account = $2", id_, context.account
        )
        if seq is None:
            raise resource_missing(self.kind, id_, param)
        return seq


def _created(params: Params) -> list[tuple[str, int]]:
    value = params.raw.get("created")
    if value is None:
        return []
    if isinstance(value, str):
        return [("=", as_integer(value, "created"))]
    if not isinstance(value, dict) or not set(value) <= set(COMPARISONS):
        raise invalid_request("Invalid hash: created takes gt, gte, lt and lte.", param="created")
    return [(COMPARISONS[name], as_integer(moment, f"created[{name}]")) for name, moment in value.items()]


INTENTS = Listing("processor.payment_intent", "payment_intent", "/v1/payment_intents", ("customer",))
CHARGES = Listing("processor.charge", "charge", "/v1/charges", ("customer", "payment_intent"))
REFUNDS = Listing("processor.refund", "refund", "/v1/refunds", ("payment_intent", "charge"))
