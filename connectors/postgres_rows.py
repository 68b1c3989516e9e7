"""Rows of published tables as they are now, in the form in which their changes are told."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
import psycopg
from psycopg import sql

from connectors.identity import key_of
from connectors.pg_values import Types
from connectors.postgres_catalog import Session, text
from permaflow.plan import Json


@dataclass(frozen=True, slots=True)
class Row:
    """A row, and what names it. `key` is that of its changes."""

    namespace: str
    table: str
    key: str
    values: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Table:
    namespace: str
    name: str
    key: Sequence[str]
    types: Sequence[str]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.namespace, self.name)


async def read_rows(
    session: Session,
    publication: str,
    wanted: Mapping[str, Collection[str]],
    types: Types,
    private: Iterable[str] = (),
) -> list[Row]:
    """The rows of published tables, `name` or `schema.name`, that have these keys. `session` tells
    values as the log does (`pg_values.SESSION`). Tables without a key have none; those of the
    `private` schemas are found only by their name with the schema.
    """
    names, hidden = sorted(wanted), sorted(private)
    cursor = await session.execute(text("row_keys"), (publication, names, hidden, names))
    found: list[Row] = []
    for table in [_Table(*row) for row in await cursor.fetchall()]:
        full = f"{table.namespace}.{table.name}"
        spelled = (full,) if table.namespace in hidden else (table.name, full)
        keys = sorted({key for name in spelled for key in wanted.get(name, ())})
        found += await _rows_of(session, table, keys, types)
    return found


async def _rows_of(session: Session, table: _Table, keys: Sequence[str], types: Types) -> list[Row]:
    if len(table.key) == 1:
        statement = sql.SQL(text("rows")).format(
            table=table.identifier,
            key=sql.Identifier(table.key[0]),
            type=sql.SQL(cast(Any, table.types[0])),
        )
        try:
            return await _read(session, statement, [list(keys)], table, types)
        except psycopg.DataError:  # one of them cannot be a key of this table
            pass
    match = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(c)) for c in table.key)
    statement = sql.SQL(text("row")).format(table=table.identifier, match=match)
    found: list[Row] = []
    for key in keys:
        parts = _parts(key, len(table.key))
        if parts is not None:
            with contextlib.suppress(psycopg.DataError):
                found += await _read(session, statement, parts, table, types)
    return found


def _parts(key: str, count: int) -> list[str] | None:
    """The values of a key, as `identity.key_of` writes them."""
    if count == 1:
        return [key]
    try:
        values = orjson.loads(key)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(values, list) or len(values) != count:
        return None
    return [v if isinstance(v, str) else orjson.dumps(v).decode() for v in values]


async def _read(
    session: Session, statement: sql.Composed, values: list[Any], table: _Table, types: Types
) -> list[Row]:
    cursor = await session.execute(statement, values)
    columns = cursor.description or []
    unknown = types.unknown(column.type_code for column in columns)
    raw = list(_raw(cursor.pgresult, len(columns)))
    if unknown:
        learnt = await session.execute(text("types"), (unknown,))
        types.learn(await learnt.fetchall())
    readers = [(column.name, types.reader(column.type_code)) for column in columns]
    found: list[Row] = []
    for row in raw:
        record = {
            name: None if value is None else read(value)
            for (name, read), value in zip(readers, row, strict=True)
        }
        key = key_of([record.get(name) for name in table.key])
        found.append(Row(table.namespace, table.name, key, record))
    return found


def _raw(result: Any, width: int) -> Iterator[list[bytes | None]]:
    """The values as the server wrote them."""
    if result is not None:
        for place in range(result.ntuples):
            yield [result.get_value(place, column) for column in range(width)]
