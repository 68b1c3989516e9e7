"""Task types that are served elsewhere: JSON Schemas in the place of models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import jsonschema_rs
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from permaflow.errors import ContractError
from permaflow.plan import Json
from permaflow.task import TaskContext, Verdict

MAX_ERRORS = 50
MAX_MESSAGE = 300


class JsonSchema:
    """A JSON Schema that can do what a task type asks of a pydantic model.

    References lead nowhere but into the schema itself. Raises `ContractError` for one that is none.
    """

    def __init__(self, schema: Mapping[str, Json]) -> None:
        self.schema = dict(schema)
        try:
            jsonschema_rs.meta.validate(self.schema)
            self._validator = jsonschema_rs.validator_for(self.schema, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            reason = str(error).splitlines()[0][:MAX_MESSAGE]
            raise ContractError(f"This is no JSON Schema: {reason}.") from None

    @cached_property
    def name(self) -> str:
        return str(self.schema.get("title", "config"))

    def model_validate(self, value: Json) -> Json:
        """The value itself. Raises pydantic's `ValidationError` where it does not fit."""
        if not self._validator.is_valid(value):
            faults = [
                _fault(e, value) for e in islice(self._validator.iter_errors(value), MAX_ERRORS)
            ]
            raise ValidationError.from_exception_data(self.name, faults)
        return value

    def model_json_schema(self, **_: Any) -> dict[str, Json]:
        return self.schema


def _fault(error: jsonschema_rs.ValidationError, value: Json) -> InitErrorDetails:
    place = tuple(error.instance_path)
    kind = "schema"
    missing = getattr(error.kind, "property", None) if error.kind.name == "required" else None
    if missing is not None:
        kind, place = "missing", (*place, missing)
    message = error.message[:MAX_MESSAGE]
    told = PydanticCustomError(kind, "{message}", {"message": message})
    return {"type": told, "loc": place, "input": value}


async def run_elsewhere(config: Any, ctx: TaskContext) -> Verdict:
    """Stands in the place of a coroutine; runners leave remote types to others."""
    raise ContractError("This task type is served by workers of another kind, not by a runner.")
