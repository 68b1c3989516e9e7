"""Where in a JSON text a pointer leads: line and column, for people and editors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder(strict=False).raw_decode


def position(text: str, pointer: str) -> tuple[int, int]:
    """Line and column (from 1) of the value at an RFC 6901 pointer in a valid JSON text.

    Where the pointer leads further than the text goes, of the innermost value that is there.
    """
    place = _skip(text, 0)
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        found = None
        for key, start in _members(text, place):
            if key == name:
                found = start  # of two members of one name, the last one counts
        if found is None:
            break
        place = found
    line = text.count("\n", 0, place) + 1
    return line, place - (text.rfind("\n", 0, place) + 1) + 1


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
