"""What the schemas are made of.

Documents are read leniently in three ways, and the schemas are as lenient: a member that may be
left out may be null, names with `x-` are the user's own, and where a config wants a value a
template may stand for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from permaflow.plan import Json, OnUnknown
from specs.comparing import ALIASES, NO_VALUE, OPERATORS
from specs.durations import LONGEST_SECONDS

Schema = dict[str, Any]

ANYTHING: Schema = {}
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
TEMPLATE: Schema = {"$ref": "#/$defs/template"}
TEST: Schema = {"$ref": "#/$defs/test"}
COMPARISON: Schema = {"$ref": "#/$defs/comparison"}
SECONDS: Schema = {"type": "number", "minimum": 0.001, "maximum": LONGEST_SECONDS}
MILLISECONDS: Schema = {"type": "number", "minimum": 0, "maximum": LONGEST_SECONDS * 1000}


def shape(
    properties: Mapping[str, Schema],
    required: Collection[str] = (),
    *,
    ignored: Collection[str] = (),
    is_open: bool = False,
    description: str = "",
) -> Schema:
    """An object. `ignored` names may hold anything; of others, only `x-…` unless it is open."""
    members = {
        name: part if name in required else nullable(part) for name, part in properties.items()
    }
    made: Schema = {
        "type": "object",
        "properties": {**members, **dict.fromkeys(sorted(ignored), ANYTHING)},
    }
    if description:
        made["description"] = description
    if required:
        made["required"] = [name for name in properties if name in required]
    if not is_open:
        made["patternProperties"] = {"^x-": ANYTHING}
        made["additionalProperties"] = False
    return made


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if not schema or schema.get("type") == "null":
        return schema
    kind = schema.get("type")
    if type(kind) is list:
        return schema if "null" in kind else {**schema, "type": [*kind, "null"]}
    if type(kind) is not str or "const" in schema:
        notes = {k: v for k, v in schema.items() if k in ("description", "title", "default")}
        rest = {k: v for k, v in schema.items() if k not in notes}
        return {"anyOf": [rest, {"type": "null"}], **notes}
    made = {**schema, "type": [kind, "null"]}
    if "enum" in schema:
        made["enum"] = [*schema["enum"], None]
    return made


def choice(*values: str, description: str = "") -> Schema:
    made: Schema = {"type": "string", "enum": list(values)}
    return {**made, "description": description} if description else made


def said(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def listed(items: Schema, **more: Json) -> Schema:
    return {"type": "array", "items": items, **more}


_CONDITION_NAMES = ("all", "any")

DEFINITIONS: dict[str, Schema] = {
    "template": {
        "type": "string",
        "pattern": r"\{\{",
        "description": "A template, such as {{trigger.record.name}} or {{= trigger.amount * 2 }}.",
    },
    "comparison": {
        **shape(
            {
                "field": said(
                    {"type": "string", "minLength": 1}, "A path, such as amount or address.city."
                ),
                "op": choice(*sorted(OPERATORS), *ALIASES),
                "value": ANYTHING,
            },
            ("field", "op"),
            ignored=("id", "label"),
        ),
        "if": {"properties": {"op": {"enum": sorted(NO_VALUE)}}},
        "else": {"required": ["value"]},
    },
    "test": {
        "description": "Conditions, or an expression such as trigger.record.amount > 100.",
        "anyOf": [
            {"type": "boolean"},
            {"type": "string", "minLength": 1},
            {"type": "array", "items": TEST, "minItems": 1},
            COMPARISON,
            *(
                {
                    "type": "object",
                    "properties": {name: {"type": "array", "items": TEST, "minItems": 1}},
                    "required": [name],
                    "additionalProperties": False,
                }
                for name in _CONDITION_NAMES
            ),
            {
                "type": "object",
                "properties": {"not": TEST},
                "required": ["not"],
                "additionalProperties": False,
            },
        ],
    },
    "retry": shape(
        {
            "max_retries": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 3},
            "backoff": choice("exponential", "fixed", "constant"),
            "initial_delay_ms": MILLISECONDS,
            "max_delay_ms": MILLISECONDS,
            "jitter": {
                "anyOf": [{"type": "boolean"}, {"type": "number", "minimum": 0, "maximum": 1}]
            },
        },
        description="Further attempts after a failure that may pass.",
    ),
    "on_unknown": choice(
        *(str(each) for each in OnUnknown),
        description="What happens when nobody knows what an attempt did.",
    ),
    "on_error": {
        "description": "What a failure does: stop, continue, or goto:<id>.",
        "anyOf": [choice("stop", "continue"), {"type": "string", "pattern": "^goto:.*\\S"}],
    },
}


# --- schemas of task types ------------------------------------------------------------------------

_NOTES = ("title", "description", "default", "examples")
_INNER = ("anyOf", "oneOf", "allOf")
_STRICT = frozenset({"enum", "const", "format", "pattern", "minLength", "maxLength"})


def relaxed(schema: Json, instead: Schema) -> Json:
    """A schema of a config, with `instead` wherever a value may stand, save for the whole."""
    if type(schema) is not dict:
        return schema
    made: Schema = {}
    for name, part in schema.items():
        match name:
            case "properties" | "patternProperties" | "$defs" if type(part) is dict:
                wrap = name != "$defs"
                made[name] = {
                    key: _or_instead(value, instead) if wrap else relaxed(value, instead)
                    for key, value in part.items()
                }
            case "items" | "additionalProperties" if type(part) is dict:
                made[name] = _or_instead(part, instead)
            case "anyOf" | "oneOf" | "allOf" if type(part) is list:
                # Several of `oneOf` fit what a template stands in for.
                made["anyOf" if name == "oneOf" else name] = [
                    relaxed(each, instead) for each in part
                ]
            case "discriminator":
                pass
            case _:
                made[name] = part
    return made


def _or_instead(schema: Json, instead: Schema) -> Json:
    part = relaxed(schema, instead)
    if type(part) is not dict or not _narrow(part):
        return part
    notes = {name: part[name] for name in _NOTES if name in part}
    rest = {name: value for name, value in part.items() if name not in notes}
    return {"anyOf": [rest, instead], **notes}


def _narrow(schema: Schema) -> bool:
    """Whether there are texts that do not fit."""
    if not schema.keys() - set(_NOTES):
        return False
    kind = schema.get("type")
    kinds = kind if type(kind) is list else [kind]
    if "string" in kinds:
        return bool(_STRICT & schema.keys())
    if "anyOf" in schema and len(schema.keys() - set(_NOTES)) == 1:
        return all(type(each) is dict and _narrow(each) for each in schema["anyOf"])
    return True


def moved(schema: Json, prefix: str) -> Json:
    """A schema whose own definitions will stand among others, under names with a prefix."""
    match schema:
        case dict():
            made = {name: moved(part, prefix) for name, part in schema.items() if name != "$defs"}
            reference = made.get("$ref")
            if type(reference) is str and reference.startswith("#/$defs/"):
                made["$ref"] = f"#/$defs/{prefix}.{reference.removeprefix('#/$defs/')}"
            return made
        case list():
            return [moved(part, prefix) for part in schema]
        case _:
            return schema
