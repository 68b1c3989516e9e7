"""JSON Schemas of triggers: what the input of a run must look like.

Schemas are written by users: references lead nowhere but into the schema itself, and patterns are
matched in linear time.
"""

from __future__ import annotations

from itertools import islice

import jsonschema_rs

from permaflow.errors import InputError
from permaflow.plan import Json, Problem
from permaflow.values import escape

MOST_PROBLEMS = 50
LONGEST_MESSAGE = 300

Validator = jsonschema_rs.Validator
_PATTERNS = jsonschema_rs.RegexOptions()


def compile_schema(schema: Json) -> Validator | None:
    """None for no schema. Raises `InputError` for one that cannot be used."""
    if schema is None:
        return None
    try:
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(error).splitlines()[0][:LONGEST_MESSAGE]
        raise InputError(f"This JSON Schema cannot be used: {reason}.") from None


def misfits(validator: Validator, value: Json, pointer: str) -> tuple[Problem, ...]:
    """Where a value, which stands at `pointer`, does not fit."""
    if validator.is_valid(value):
        return ()
    return tuple(
        Problem(
            pointer + "".join(f"/{escape(str(part))}" for part in error.instance_path),
            "input_schema",
            f"{error.message[:LONGEST_MESSAGE]}.",
        )
        for error in islice(validator.iter_errors(value), MOST_PROBLEMS)
    )
