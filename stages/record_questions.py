"""What `action_record` may ask for: conditions, an order, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from permaflow.plan import Json
from permaflow.ports import Filter, Order


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


Operator = Literal[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "not_in",
    "contains",
    "starts_with",
    "exists",
    "not_exists",
]


class Condition(BaseModel):
    """What a field must be like. `contains` looks for a text in a text and for an element in an
    array; what is not there is null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(min_length=1, max_length=200)
    op: Operator = "eq"
    value: Json = None

    @model_validator(mode="after")
    def _has_its_value(self) -> Condition:
        if self.op in ("in", "not_in") and not isinstance(self.value, list):
            raise ValueError(f"{self.op} compares with a list")
        if self.op in ("exists", "not_exists") and self.value is not None:
            raise ValueError(f"{self.op} takes no value")
        if self.op in ("contains", "starts_with") and self.value is None:
            raise ValueError(f"{self.op} needs a value")
        return self


Conditions = Annotated[tuple[Condition, ...], Field(max_length=20)]
MOST_FIELDS = 2
SortInput = str | Annotated[list[str], Field(max_length=MOST_FIELDS)]
Sort = Annotated[
    tuple[Annotated[str, Field(pattern=r"^-?[^-].{0,199}$")], ...],
    Field(max_length=MOST_FIELDS),
    BeforeValidator(_several, json_schema_input_type=SortInput),
    Field(description="Fields to sort by; `-amount` begins with the largest."),
]
Limit = Annotated[int, Field(ge=1, le=1_000, description="How many at most.")]


def question(
    conditions: Sequence[Condition], sort: Sequence[str]
) -> tuple[list[Filter], list[Order]]:
    """As the ports want it."""
    return (
        [Filter(each.field, each.op, each.value) for each in conditions],
        [Order(each.removeprefix("-"), each.startswith("-")) for each in sort],
    )
