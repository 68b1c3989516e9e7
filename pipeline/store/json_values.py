"""JSON on its way into and out of PostgreSQL: orjson, and text that passes through unread."""

from __future__ import annotations

from typing import Any

import orjson
import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.types.json import Json as JsonParameter
from psycopg.types.json import set_json_dumps, set_json_loads

from permaflow.errors import InputError
from permaflow.plan import Json


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
