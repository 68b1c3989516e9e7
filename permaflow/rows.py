"""What the composite fields of a form hold, read into the values that a task gets.

Each may be written as JSON or as JSON in text, as form builders store it. A template may stand for
the whole and anywhere inside of JSON, but not inside of JSON text, where its value could add
members (see `template_in_text`).
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import PydanticCustomError

from permaflow.errors import InputError
from permaflow.forms import RowMode, hinted
from permaflow.plan import Json, Problem
from permaflow.values import escape, parse

COMPOSITE = frozenset({"single-row-update", "match-builder", "multi-select", "schema-builder"})
STATUS = "_status"
STATUSES: dict[RowMode, str] = {"update": "U", "insert": "I", "delete": "D"}

_whole = re.compile(r"\{\{(?:(?!\}\}).)*\}\}", re.DOTALL)


def template_in_text(value: Json) -> bool:
    """Whether a template stands inside of text that is read as JSON."""
    return isinstance(value, str) and "{{" in value and _whole.fullmatch(value.strip()) is None


def text_problems(model: object, config: Json) -> tuple[Problem, ...]:
    """The fields of a form whose JSON text has templates in it."""
    if not isinstance(config, dict):
        return ()
    return tuple(
        Problem(
            f"/{escape(key)}",
            "template_in_text",
            "A template inside of JSON text could add members by its value. Write the JSON itself, "
            "not text, and put the template in the place of a value.",
        )
        for key, _, hint in hinted(model)
        if hint.kind in COMPOSITE and template_in_text(config.get(key))
    )


def read_row(mode: RowMode) -> Any:
    """A reader of `single-row-update`.

    `update` takes one object and `insert` and `delete` an array of one; the task gets them with
    their `_status`: U, I or D.
    """

    def read(value: Any) -> Any:
        value = from_text(value)
        if value is None:
            return None
        if mode == "update":
            return _row(value, mode)
        if not isinstance(value, list) or len(value) != 1:
            raise _wrong(f"It must be an array of one row to {mode}.")
        return [_row(value[0], mode)]

    return read


def _row(value: Any, mode: RowMode) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _wrong("A row is an object of attributes and their values.")
    status = STATUSES[mode]
    if value.get(STATUS, status) != status:
        raise _wrong(f"The `_status` of a row to {mode} is {status!r}.")
    if not value.keys() - {STATUS}:
        raise _wrong(f"A row to {mode} needs at least one attribute.")
    return {**value, STATUS: status}


def read_match(value: Any) -> Any:
    """A reader of `match-builder`: one object of attributes and their values; empty is none."""
    if value is None:
        return None
    value = from_text(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong("It must be an object of attributes and their values.")
    return value


def read_selection(value: Any) -> Any:
    """A reader of `multi-select`: an array of what was selected; empty means everything."""
    if value is None:
        return None
    value = from_text(value)
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise _wrong("It must be an array of what is selected.")
    if len({repr(each) for each in value}) != len(value):
        raise _wrong("Something is selected twice.")
    return list(value)


def read_schema(value: Any) -> Any:
    """A reader of `schema-builder`: a JSON Schema."""
    value = from_text(value)
    if value is not None and not isinstance(value, (dict, bool)):
        raise _wrong("It must be a JSON Schema: an object.")
    return value


def from_text(value: Any) -> Any:
    """JSON text as JSON; empty text as null; everything else as it is."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parse(value)
    except InputError as error:
        raise _wrong(f"The text is not JSON: {error}") from None


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("form", "{message}", {"message": message.rstrip(".")})
