"""JSON on its way into and out of PostgreSQL: orjson, and text that passes through unread."""

from __future__ import annotations

import math
from typing import Any

import orjson
import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.types.json import Json as JsonParameter
from psycopg.types.json import set_json_dumps, set_json_loads

from permaflow.errors import InputError
from permaflow.plan import Json

_DEPTH = 64


def to_json(value: Json) -> bytes:
    """The text of a value. Raises `InputError` for what JSON has no form for."""
    try:
        return orjson.dumps(value)
    except (TypeError, RecursionError) as error:
        raise InputError(f"A value is not JSON: {error}.") from None


class RawJson(Loader):
    """A json column as the bytes that were stored."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def raw(text: bytes) -> JsonParameter:
    """A parameter whose text is JSON already."""
    return JsonParameter(text, bytes)


def use_orjson(connection: psycopg.AsyncConnection[Any]) -> None:
    """Makes this connection read and write json and jsonb with orjson."""
    set_json_dumps(to_json, connection)
    set_json_loads(orjson.loads, connection)


def check_storable(value: Json) -> None:
    """Refuses what jsonb cannot keep or give back: NUL, NaN, large exponents, deep nesting.

    Raises `InputError` with the JSON pointer of the first such place.
    """
    stack: list[tuple[Json, str, int]] = [(value, "", 0)]
    while stack:
        item, pointer, depth = stack.pop()
        match item:
            case dict() | list() if depth >= _DEPTH:
                raise InputError(f"It is nested deeper than {_DEPTH} levels.", pointer=pointer)
            case dict():
                for name, part in item.items():
                    if not isinstance(name, str):
                        raise InputError("The name of a field is not a text.", pointer=pointer)
                    below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
                    _check_text(name, below)
                    stack.append((part, below, depth + 1))
            case list() | tuple():
                stack.extend((part, f"{pointer}/{i}", depth + 1) for i, part in enumerate(item))
            case str():
                _check_text(item, pointer)
            case float() if not math.isfinite(item):
                raise InputError(f"The number {item} has no form in JSON.", pointer=pointer)
            case int() if not -(2**63) <= item < 2**64:
                raise InputError("The number has more than 64 bits.", pointer=pointer)
            case None | bool() | int() | float():
                pass
            case _:
                raise InputError(f"A {type(item).__name__} is no JSON value.", pointer=pointer)


def _check_text(text: str, pointer: str) -> None:
    if "\0" in text:
        raise InputError("A text holds a NUL character, which cannot be stored.", pointer=pointer)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                "A text holds half of a surrogate pair, which is no character.", pointer=pointer
            ) from None
