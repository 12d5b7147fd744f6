"""JSON shapes: camelCase, requests strict and closed, responses open to new fields."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class RequestModel(BaseModel):
    """A body: `"1"` is no number, an unknown field is refused, names are camelCase only."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, validate_by_name=False)


class ResponseModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)
