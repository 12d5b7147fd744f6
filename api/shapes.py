"""JSON shapes: camelCase, requests strict and closed, responses open to new fields."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from models.types import Money


def _in_full(money: Money) -> Money:
    if "currency" not in money.model_fields_set:
        raise ValueError("say the currency as well")
    return money


GivenMoney = Annotated[Money, AfterValidator(_in_full)]  # in a request: an amount of nothing in particular is no money


def moment(text: str) -> datetime:
    """A time or date in ISO 8601; without a zone it is UTC. Raises ValueError."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a time in ISO 8601, like 2026-07-01T12:00Z") from None


Moment = Annotated[datetime, BeforeValidator(moment)]  # pydantic alone would take 20260701 for seconds since 1970


class RequestModel(BaseModel):
    """A body: `"1"` is no number, an unknown field is refused, names are camelCase only."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, validate_by_name=False)


class ResponseModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)
