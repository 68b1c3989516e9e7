"""Merge fields: `[[customer.name]]` in a text, with the values beside it.

They are filled when the step runs, after the engine has rendered `{{…}}`; so a value that looks
like a template is never read as one, and in HTML every value is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping

import orjson

from permaflow.errors import InputError
from permaflow.plan import Json

_field = re.compile(r"\[\[\s*([A-Za-z_][\w\-]*(?:\.[\w\-]+)*)\s*\]\]")
_MISSING = object()


def merge_text(text: str, values: Mapping[str, Json]) -> str:
    """The text with its fields filled. Raises `InputError` that names those without a value."""
    return _merge(text, values, str)


def merge_html(text: str, values: Mapping[str, Json]) -> str:
    """The same for HTML; values are escaped, for elements and for quoted attributes."""
    return _merge(text, values, html.escape)


def _merge(text: str, values: Mapping[str, Json], escape: Callable[[str], str]) -> str:
    missing: dict[str, None] = {}

    def fill(found: re.Match[str]) -> str:
        value = _at(values, found[1])
        if value is _MISSING:
            missing[found[1]] = None
            return ""
        return escape(_shown(value))

    merged = _field.sub(fill, text)
    if missing:
        names = ", ".join(f"[[{name}]]" for name in missing)
        raise InputError(f"`merge` has no value for {names}.", pointer="/merge")
    return merged


def _at(values: Mapping[str, Json], path: str) -> object:
    """A value by its path; one whose name has dots goes first."""
    if path in values:
        return values[path]
    here: object = values
    for part in path.split("."):
        match here:
            case Mapping() if part in here:
                here = here[part]
            case list() if part.isdecimal() and int(part) < len(here):
                here = here[int(part)]
            case _:
                return _MISSING
    return here


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
    return orjson.dumps(value).decode()
