"""The statements of `postgres_tables.py`: texts from queries/*.sql, names from a catalogue.

The only place where names become part of a statement. They are those that the catalogue of the
database gave, quoted; what a workflow says is only ever compared with them, or bound as a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast

import orjson
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder

from permaflow.errors import InputError
from permaflow.plan import Json

_FOLDER = Path(__file__).with_name("queries")


def text(name: str) -> LiteralString:
    """The statement in queries/<name>.sql."""
    lines = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    statement = "\n".join(line for line in lines if not line.startswith("--"))
    literal: LiteralString = cast(Any, statement)
    return literal


INSERT, INSERT_EMPTY = SQL(text("insert")), SQL(text("insert_empty"))
SELECT, COUNT = SQL(text("select")), SQL(text("count"))
UPDATE, DELETE = SQL(text("update")), SQL(text("delete"))
QUERY, UPSERT = SQL(text("query")), SQL(text("upsert"))


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    is_json: bool
    is_array: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the catalogue knows it."""

    schema: str
    name: str
    columns: Mapping[str, Column]

    def column(self, name: str) -> Column:
        found = self.columns.get(name)
        if found is None:
            raise InputError(
                f"The table {self.schema}.{self.name} has no column {name!r}. "
                f"It has {', '.join(self.columns)}."
            )
        return found


Row = tuple[str, str, str, bool, bool]


def tables(rows: Iterable[Row]) -> list[Table]:
    """The tables that columns.sql tells of."""
    found: dict[tuple[str, str], dict[str, Column]] = {}
    for schema, relation, column, is_json, is_array in rows:
        known = found.setdefault((schema, relation), {})
        known[column] = Column(column, is_json, is_array)
    return [Table(schema, name, columns) for (schema, name), columns in found.items()]


def choose(name: str, candidates: Sequence[Table]) -> Table:
    """The table that is meant; one in `public` goes first. Raises `InputError`."""
    if not candidates:
        raise InputError(f"There is no table {name!r} that the role of this source can see.")
    exact = [table for table in candidates if f"{table.schema}.{table.name}" == name]
    public = [table for table in candidates if table.schema == "public"]
    for some in (exact, public, list(candidates)):
        if len(some) == 1:
            return some[0]
    schemas = ", ".join(sorted(table.schema for table in candidates))
    raise InputError(f"The table {name!r} is in several schemas: {schemas}. Write schema.table.")


Statement = tuple[Composed, list[str | None]]


def insert(table: Table, values: Mapping[str, Json]) -> Statement:
    columns = [table.column(name) for name in values]
    if not columns:
        return INSERT_EMPTY.format(table=_name(table)), []
    comma = SQL(", ")
    statement = INSERT.format(
        table=_name(table),
        columns=comma.join(quoted_name(column.name) for column in columns),
        values=comma.join(Placeholder() for _ in columns),
    )
    return statement, [bound(column, values[column.name]) for column in columns]


def select(table: Table, match: Mapping[str, Json]) -> Statement:
    where, values = _where(table, match)
    return SELECT.format(table=_name(table), match=where), values


def count(table: Table, match: Mapping[str, Json], limit: int) -> Statement:
    where, values = _where(table, match)
    return COUNT.format(table=_name(table), match=where, limit=Literal(limit)), values


def update(table: Table, match: Mapping[str, Json], values: Mapping[str, Json]) -> Statement:
    if not values:
        raise InputError("An update needs at least one value.")
    columns = [table.column(name) for name in values]
    assignments = SQL(", ").join(
        SQL("{} = {}").format(quoted_name(column.name), Placeholder()) for column in columns
    )
    where, matched = _where(table, match)
    statement = UPDATE.format(table=_name(table), assignments=assignments, match=where)
    return statement, [bound(column, values[column.name]) for column in columns] + matched


def upsert(table: Table, match: Mapping[str, Json], values: Mapping[str, Json]) -> Statement:
    """A row with both; where one has what `match` says, it gets the values."""
    if not match or any(value is None for value in match.values()):
        raise InputError("A match of an upsert needs at least one column, and no null.")
    both = {**match, **values}
    if len(both) < len(match) + len(values):
        raise InputError("A column stands either in match or in values.")
    columns = [table.column(name) for name in both]
    changed = [table.column(name) for name in values or match]
    comma = SQL(", ")
    statement = UPSERT.format(
        table=_name(table),
        columns=comma.join(quoted_name(column.name) for column in columns),
        values=comma.join(Placeholder() for _ in columns),
        unique=comma.join(quoted_name(table.column(name).name) for name in match),
        assignments=comma.join(
            SQL("{} = {}").format(quoted_name(column.name), quoted_name("excluded", column.name))
            for column in changed
        ),
    )
    return statement, [bound(column, both[column.name]) for column in columns]


def delete(table: Table, match: Mapping[str, Json]) -> Statement:
    where, values = _where(table, match)
    return DELETE.format(table=_name(table), match=where), values


def _name(table: Table) -> Identifier:
    return quoted_name(table.schema, table.name)


def quoted_name(*parts: str) -> Identifier:
    """An identifier in which the driver sees no placeholder."""
    return Identifier(*(part.replace("%", "%%") for part in parts))


def _where(table: Table, match: Mapping[str, Json]) -> tuple[Composed, list[str | None]]:
    if not match:
        raise InputError("A match needs at least one column; all rows at once are not touched.")
    terms: list[Composable] = []
    values: list[str | None] = []
    for name, value in match.items():
        column = quoted_name("target", table.column(name).name)
        if value is None:
            terms.append(SQL("{} is null").format(column))
        else:
            terms.append(SQL("{} = {}").format(column, Placeholder()))
            values.append(bound(table.column(name), value))
    return SQL(" and ").join(terms), values


def bound(column: Column, value: Json) -> str | None:
    """The value as text of unknown type: the database reads it as the column's type says, so that
    no number passes through a double and no text is cut to fit.
    """
    if value is None:
        return None
    if column.is_json:
        return _json(value)
    if isinstance(value, list):
        if not column.is_array:
            raise InputError(f"The column {column.name} is no array, but its value is a list.")
        return array(value)
    if isinstance(value, dict):
        raise InputError(f"The column {column.name} is not JSON, but its value is an object.")
    return scalar(value)


def _json(value: Json) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise InputError(f"This is no JSON: {error}.") from None


def scalar(value: Json) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | float():
            return repr(value)
    raise InputError(f"A {type(value).__name__} is no value for a column.")


def array(values: Sequence[Json]) -> str:
    """A list as PostgreSQL writes arrays."""
    parts = []
    for value in values:
        match value:
            case None:
                parts.append("NULL")
            case list():
                parts.append(array(value))
            case dict():
                parts.append(_element(_json(value)))
            case _:
                parts.append(_element(scalar(value)))
    return "{" + ",".join(parts) + "}"


def _element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
