"""JSON shapes: camelCase, requests strict and closed, responses open to new fields."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from models.types import Money


def _in_full(money: Money) -> Money:
    if "currency" not in money.model_fields_set:
        raise ValueError("say the currency as well")
    return money


GivenMoney = Annotated[Money, AfterValidator(_in_full)]  # in a request: an amount of nothing in particular is no money


class RequestModel(BaseModel):
    """A body: `"1"` is no number, an unknown field is refused, names are camelCase only."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, validate_by_name=False)


class ResponseModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)
