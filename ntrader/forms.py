"""How a request shows as a form, such as that of Prefect's pages. What is valid is decided elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import ConfigDict, WithJsonSchema

from ntrader.strategies.registry import STRATEGIES


def as_form(schema: dict[str, Any]) -> None:
    """Of a model's JSON schema, in place: fields in the order of the class, which PostgreSQL forgets; and what may be
    left out is simply blank, where pydantic would offer a choice between a value and null."""
    for position, (name, field) in enumerate(schema.get("properties", {}).items()):
        field["position"] = position
        words = name.replace("_", " ")
        if field.get("title", words.title()) == words.title():
            field["title"] = words.capitalize()
        _without_null(field)


def _without_null(field: dict[str, Any]) -> None:
    choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del field["anyOf"]
        field.update(choices[0] | field)
    elif choices:
        field["anyOf"] = choices
    if field.get("default", ...) is None:
        del field["default"]


def choice(values: tuple[str, ...]) -> WithJsonSchema:
    """One of `values`, to be picked from a list."""
    return WithJsonSchema({"type": "string", "enum": list(values)})


def or_new(title: str, schema: dict[str, Any], otherwise: str) -> WithJsonSchema:
    """For a flow's own parameter: `otherwise`, unless somebody chooses `title` and gives one. Prefect sends null for
    what nobody filled in, so null has to be allowed."""
    return WithJsonSchema({"anyOf": [{"type": "null", "title": otherwise}, {**schema, "title": title}]})


FORM: Final = ConfigDict(json_schema_extra=as_form)
DATE: Final = WithJsonSchema({"type": "string", "format": "date"})
AMOUNT: Final = WithJsonSchema({"type": "number", "exclusiveMinimum": 0})
COUNT: Final = WithJsonSchema({"type": "integer", "minimum": 1})
STRATEGY: Final = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "enum": [entry.key for entry in STRATEGIES], "title": "Shipped"},
            {"type": "string", "title": "Another"},
        ]
    }
)

# Of flows themselves
NewRunId = Annotated[UUID | None, or_new("This one", {"type": "string", "format": "uuid"}, "A new one")]
Workers = Annotated[int | None, or_new("So many", {"type": "integer", "minimum": 1}, "One a core")]
