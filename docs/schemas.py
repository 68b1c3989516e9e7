"""JSON Schemas as tables: one line for each member."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from markdown import anchor, row, sentence, table

Schema = Mapping[str, Any]

_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} members",
    "pattern": "matches `{}`",
}
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "object",
    "array": "array",
}


def members(schema: Schema, *, linked: bool = False) -> Iterator[str]:
    """The members of an object's schema."""
    required = set(schema.get("required", ()))
    yield from table("Member", "Type", "Default", "What it is")
    for name, part in schema.get("properties", {}).items():
        yield row(
            f"`{name}`",
            kind(part, linked=linked),
            default(part, required=name in required),
            sentence(part.get("description")),
        )


def kind(schema: Schema, *, linked: bool = False) -> str:
    """The type of a value in a user's words, with its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}]({anchor(name)})" if linked else name
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            found = [kind(each, linked=linked) for each in schema[choice]]
            if found[-1] == "null":
                found = [*dict.fromkeys(f"({x})" if " or " in x else x for x in found[:-1]), "null"]
            return " or ".join(dict.fromkeys(found))
    word = schema.get("format") or _WORDS.get(str(schema.get("type")), "any JSON")
    items, inner = schema.get("items"), schema.get("additionalProperties")
    if schema.get("type") == "array" and items:
        word = f"array of {kind(items, linked=linked)}"
    elif schema.get("type") == "object" and isinstance(inner, dict) and inner:
        word = f"object of {kind(inner, linked=linked)}"
    bounds = [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
    said = ", ".join([word, *bounds])
    return re.sub(r"at least 1 (characters|items|members)", "not empty", said)


def default(schema: Schema, *, required: bool) -> str:
    if required:
        return "required"
    if "default" not in schema:
        return "empty"
    return f"`{json.dumps(schema['default'])}`"
