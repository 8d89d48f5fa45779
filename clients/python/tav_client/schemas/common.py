"""What requests and responses are based on, and pages of them."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


def as_tuple(value: Any) -> Any:
    """Return a JSON array as a tuple: a validator that runs before the type hides from pydantic that the value is JSON."""
    return tuple(value) if isinstance(value, list) else value


WholeSeconds = Annotated[float, PlainSerializer(int, return_type=int, when_used="json-unless-none")]
"""UNIX seconds, whole on the wire: OpenAI's clients read integers."""


class Request(BaseModel):
    """What a client sends: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Response(BaseModel):
    """What the service sends: a field that a newer service adds is ignored."""

    model_config = ConfigDict(extra="ignore")

    def _repr_html_(self) -> str:
        from tav_client._notebook import record  # only notebooks need it

        return record(self)


_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"}


def _unbounded(schema: Any) -> Any:
    """Return a JSON schema without its bounds: the types alone."""
    if isinstance(schema, dict):
        return {name: _unbounded(value) for name, value in schema.items() if name not in _BOUNDS}
    return [_unbounded(value) for value in schema] if isinstance(schema, list) else schema


class Accepted(BaseModel):
    """A stored request. It is read as it was accepted, also where the bounds of requests have changed since."""

    @model_validator(mode="wrap")
    @classmethod
    def _read_beyond_bounds(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(data)
        except ValidationError as error:
            faults = error.errors()
            if not isinstance(data, dict) or any(fault["type"] == "missing" for fault in faults):
                raise
            invalid = {str(fault["loc"][0]) for fault in faults if fault["loc"]} & cls.model_fields.keys()
        try:
            request = validate({name: value for name, value in data.items() if name not in invalid})
        except ValidationError:  # a required field is among them
            request, invalid = cast(Self, cls.model_construct()), data.keys() & cls.model_fields.keys()
        for name in invalid:
            request.__dict__[name] = as_tuple(data[name])
            request.__pydantic_fields_set__.add(name)
        return request

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the fields without bounds: they are those of new requests, and a stored one may lie beyond them."""
        schema = handler(core_schema)
        definition = handler.resolve_ref_schema(schema)
        definition["properties"] = {name: _unbounded(value) for name, value in definition["properties"].items()}
        return schema


T = TypeVar("T")


class Page(Response, Generic[T]):
    """One page of a list, newest first. Ask for the next with `after=next_cursor`."""

    object: Literal["list"] = "list"
    data: list[T]
    next_cursor: str | None = None
    has_more: bool = False

    def _repr_html_(self) -> str:
        from tav_client._tables import entries  # only notebooks need it

        return entries(self.data, more=self.has_more)
