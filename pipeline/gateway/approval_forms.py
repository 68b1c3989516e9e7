"""The form of an approval as a plain page can ask it: one text for each simple property.

Texts become values by the types of the schema. A text that is no such value stays one, so that the
schema itself refuses it. What a page leaves empty is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from permaflow.plan import Json, Problem
from permaflow.values import DECIMAL, HIGHEST, LOWEST, escape

_NUMBERS = ("number", "integer")
_SCALARS = frozenset({str, int, float, bool, type(None)})
_WHOLE = re.compile(r"[+-]?\d{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """A property that one text answers: with `choices` one of these texts, and else any."""

    name: str
    kind: str
    title: str
    hint: str
    default: str
    is_required: bool
    choices: Mapping[str, Json]

    @property
    def pointer(self) -> str:
        """Where its value stands in what is sent."""
        return f"/data/{escape(self.name)}"

    def value(self, text: str) -> Json:
        if self.choices:
            return self.choices.get(text, text)
        return _number(text.strip()) if self.kind in _NUMBERS else text.replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Form:
    """`beyond` are the properties that have to be given, and that no text can answer."""

    fields: tuple[Field, ...] = ()
    beyond: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    def text(self, asked: Field) -> str:
        return self.texts.get(asked.name, "")

    def data(self) -> dict[str, Json]:
        """What was filled in."""
        filled = ((each, self.text(each)) for each in self.fields)
        return {each.name: each.value(text) for each, text in filled if text or "" in each.choices}

    def missing(self) -> tuple[Problem, ...]:
        """What has to be filled in, and is not."""
        data = self.data()
        return tuple(
            Problem(each.pointer, "missing_field", "Fill this in.")
            for each in self.fields
            if each.is_required and each.name not in data
        )


def read_form(schema: Json, texts: Mapping[str, str] | None = None) -> Form:
    """What a page asks, and the texts that stand in it: at first those of the defaults."""
    if type(schema) is not dict:
        return Form()
    properties, required = schema.get("properties", {}), schema.get("required", [])
    found = (_field(name, each, name in required) for name, each in properties.items())
    fields = tuple(each for each in found if each is not None)
    names = {each.name for each in fields}
    beyond = tuple(name for name in required if name not in names)
    if texts is None:
        texts = {each.name: each.default for each in fields}
    return Form(fields, beyond, texts)


def _field(name: str, schema: Json, is_required: bool) -> Field | None:
    if type(schema) is not dict:
        return None
    kind, values = schema.get("type"), schema.get("enum")
    if values is None and kind == "boolean":
        values = [True, False]
    choices: dict[str, Json] = {}
    if values is not None:
        if not all(type(value) in _SCALARS for value in values):
            return None
        choices = {_text(value): value for value in values}
        if not choices or len(choices) < len(values):
            return None  # two values with one text
    elif kind not in ("string", *_NUMBERS):
        return None
    default = _text(schema["default"]) if schema.get("default") is not None else ""
    title, hint = str(schema.get("title") or name), str(schema.get("description", ""))
    return Field(name, str(kind), title, hint, default, is_required, choices)


def _text(value: Json) -> str:
    return value if type(value) is str else orjson.dumps(value).decode()


def _number(text: str) -> Json:
    if _WHOLE.fullmatch(text):
        whole = int(text)
        return whole if LOWEST <= whole <= HIGHEST else text
    if DECIMAL.fullmatch(text) and math.isfinite(real := float(text)):
        return real
    return text
