"""Rows as dataclasses: the columns of a query are the fields, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString, TypeVar

from psycopg.rows import class_row

from pipeline.store.database import Connection
from pipeline.store.json_values import RawJson

Row = TypeVar("Row")
Values = Mapping[str, Any]


async def one(
    connection: Connection, kind: type[Row], text: LiteralString, values: Values
) -> Row | None:
    """The first row, or None. A json column comes as bytes, as it was stored."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        cursor.adapters.register_loader("json", RawJson)
        await cursor.execute(text, values)
        return await cursor.fetchone()


async def every(
    connection: Connection,
    kind: type[Row],
    text: LiteralString,
    values: Values,
    *,
    prepare: bool | None = None,
) -> list[Row]:
    """All rows. A json column comes as bytes, as it was stored."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        cursor.adapters.register_loader("json", RawJson)
        await cursor.execute(text, values, prepare=prepare)
        return await cursor.fetchall()
