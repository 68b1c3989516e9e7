"""The JSON Schema of a config as the fields that a person fills in: what form builders show.

A field is `{key, label, type, required, …}` in the words of `permaflow.forms.Hint`. Where a schema
says nothing of how a member is filled in, its type says it: text takes templates, an enumeration is
a choice, a number a number; whatever has no better form is entered as JSON (`type: "json"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from permaflow.forms import KEYWORD
from permaflow.plan import Json

Schema = Mapping[str, Any]


def config_fields(schema: Schema) -> list[dict[str, Json]]:
    """The fields in the order of the schema; none for a schema that is no single object."""
    required = set(schema.get("required", ()))
    conditional = {name for each in schema.get("allOf", ()) for name in _then(each)}
    return [
        _field(name, part, schema, required=name in required or name in conditional)
        for name, part in schema.get("properties", {}).items()
        if isinstance(part, Mapping)
    ]


def _then(part: Json) -> list[str]:
    return list(part.get("then", {}).get("required", ())) if isinstance(part, Mapping) else []


def _field(name: str, given: Schema, root: Schema, *, required: bool) -> dict[str, Json]:
    part = _resolved(given, root)
    hint = given.get(KEYWORD) or part.get(KEYWORD) or _guess(part)
    shown: dict[str, Json] = {"key": name, "label": given.get("title") or part.get("title") or name}
    shown |= hint
    shown["required"] = required
    said = given.get("description") or part.get("description")
    if said:
        shown["description"] = said
    for keyword, as_named in (("minimum", "min"), ("maximum", "max"), ("default", "default")):
        found = given.get(keyword, part.get(keyword))
        if found is not None:
            shown[as_named] = found
    return shown


def _resolved(part: Schema, root: Schema, depth: int = 8) -> Schema:
    """What stands behind a reference; of "this or null", this."""
    ref = part.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/$defs/") and depth:
        return _resolved(root.get("$defs", {}).get(ref[8:], {}), root, depth - 1)
    choices = part.get("anyOf")
    if isinstance(choices, list) and depth:
        real = [each for each in choices if each.get("type") != "null"]
        if len(real) == 1:
            return {**_resolved(real[0], root, depth - 1), **_kept(part)}
    return part


def _kept(part: Schema) -> Schema:
    return {name: value for name, value in part.items() if name != "anyOf"}


def _guess(part: Schema) -> dict[str, Json]:
    values = [part["const"]] if "const" in part else part.get("enum")
    if part.get("type") == "boolean":
        values = [True, False]
    if isinstance(values, list):
        labels = {True: "Yes", False: "No"}
        options = [
            {"value": v, "label": labels[v] if isinstance(v, bool) else str(v)} for v in values
        ]
        return {"type": "select", "options": options}
    match part.get("type"):
        case "integer" | "number":
            return {"type": "number"}
        case "string" if part.get("writeOnly"):
            return {"type": "password"}
        case "string":
            return {"type": "template-input"}
    return {"type": "json"}
