"""Where in a JSON text a pointer leads: line and column, for people and editors.

A pointer may lead on into a string that holds JSON itself, as the `steps` of a workflow may.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

WIDTH = 100
"""Of a longer line, an excerpt shows what stands around the place."""

_SPACE = re.compile(r"[ \t\r\n]*")
_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]",
    re.DOTALL,
)
_decode = json.JSONDecoder(strict=False).raw_decode


def position(text: str, pointer: str, at: int | None = None) -> tuple[int, int]:
    """Line and column (from 1) of the value at an RFC 6901 pointer in a valid JSON text.

    Where the pointer leads further than the text goes, of the innermost value that is there. If
    the value is a string, `at` is a character in it (from 0): then of that.
    """
    place = _offset(text, _skip(text, 0), pointer.split("/")[1:], at)
    line = text.count("\n", 0, place) + 1
    return line, place - (text.rfind("\n", 0, place) + 1) + 1


def excerpt(text: str, line: int, column: int) -> tuple[str, ...]:
    """A line of a text, with its number, and below it a caret at the column."""
    lines = text.split("\n")
    said = lines[line - 1].rstrip("\r") if line <= len(lines) else ""
    start = 0
    if len(said) > WIDTH:
        start = max(0, min(column - 1 - WIDTH // 2, len(said) - WIDTH))
    part = said[start : start + WIDTH]
    before, after = "…" if start else "", "…" if start + WIDTH < len(said) else ""
    number = f"{line:>5} | "
    # Tabs stay tabs, so that the caret stands below its character.
    ahead = "".join(c if c == "\t" else " " for c in part[: column - 1 - start])
    caret = f"{' ' * (len(number) - 2)}| {' ' * len(before)}{ahead}^"
    return f"{number}{before}{_printable(part)}{after}", caret


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "·" for c in text)


def _offset(text: str, place: int, tokens: list[str], at: int | None) -> int:
    """The character of the text at which the value stands."""
    for number, token in enumerate(tokens):
        name = token.replace("~1", "/").replace("~0", "~")
        found = None
        for key, start in _members(text, place):
            if key == name:
                found = start  # of two members of one name, the last one counts
        if found is None:
            return _within(text, place, tokens[number:], at)
        place = found
    if at is not None and text[place] == '"':
        inner, _ = _decode(text, place)
        return _character(text, place, min(at, len(inner)))
    return place


def _within(text: str, place: int, tokens: list[str], at: int | None) -> int:
    """Goes on into a string that holds JSON, if that is what stands there."""
    if text[place] != '"':
        return place
    inner, _ = _decode(text, place)
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return place
    start = _skip(inner, 0)
    if inner[start] not in "{[":
        return place
    return _character(text, place, _offset(inner, start, tokens, at))


def _character(text: str, place: int, number: int) -> int:
    """Where the character of that number (from 0) of the string at `place` stands."""
    at = place + 1
    for _ in range(number):
        match = _CHARACTER.match(text, at)
        if match is None:
            break
        at = match.end()
    return at


def _members(text: str, place: int) -> Iterator[tuple[str, int]]:
    """Name (or index) and start of every value inside the object or array at `place`."""
    opening = text[place]
    if opening not in "{[":
        return
    place, index = _skip(text, place + 1), 0
    while text[place] not in "}]":
        if opening == "{":
            key, place = _decode(text, place)
            place = _skip(text, _skip(text, place) + 1)
        else:
            key, index = str(index), index + 1
        yield key, place
        _, place = _decode(text, place)
        place = _skip(text, place)
        if text[place] == ",":
            place = _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
