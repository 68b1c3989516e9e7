"""Questions to a table: which rows, in which order. Names come from a catalogue, as elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder

from connectors.postgres_statements import (
    QUERY,
    Column,
    Statement,
    Table,
    bound,
    quoted_name,
    scalar,
)
from permaflow.errors import InputError
from permaflow.plan import Json
from permaflow.ports import Filter, Order

_COMPARED = {
    "ne": SQL("{} is distinct from {}"),
    "gt": SQL("{} > {}"),
    "gte": SQL("{} >= {}"),
    "lt": SQL("{} < {}"),
    "lte": SQL("{} <= {}"),
}
_IN_TEXT = {
    "contains": SQL("strpos({}::text, {}) > 0"),
    "starts_with": SQL("starts_with({}::text, {})"),
}
_WITHOUT_VALUE = {"exists": SQL("{} is not null"), "not_exists": SQL("{} is null")}

Term = tuple[Composable, list[str | None]]


def query(table: Table, filters: Sequence[Filter], order: Sequence[Order], limit: int) -> Statement:
    """The rows that pass all filters. Raises `InputError` for what the table does not have."""
    terms, values = [], []
    for each in filters:
        term, bounds = _term(table.column(each.field), each)
        terms.append(term)
        values += bounds
    statement = QUERY.format(
        table=quoted_name(table.schema, table.name),
        filter=SQL(" and ").join(terms) if terms else SQL("true"),
        order=_ordered(table, order),
        limit=Literal(limit),
    )
    return statement, values


def _ordered(table: Table, order: Sequence[Order]) -> Composable:
    if not order:
        return SQL("")
    ways = [
        SQL("{} desc nulls last") if each.descending else SQL("{} nulls last") for each in order
    ]
    names = [_of(table.column(each.field)) for each in order]
    parts = [way.format(name) for way, name in zip(ways, names, strict=True)]
    return SQL("order by ") + SQL(", ").join(parts)


def _of(column: Column) -> Identifier:
    return quoted_name("target", column.name)


def _term(column: Column, wanted: Filter) -> Term:
    name, value = _of(column), wanted.value
    match wanted.op:
        case "exists" | "not_exists" as op:
            return _WITHOUT_VALUE[op].format(name), []
        case "eq":
            if value is None:
                return SQL("{} is null").format(name), []
            return SQL("{} = {}").format(name, Placeholder()), [bound(column, value)]
        case "in" | "not_in" as op:
            return _one_of(column, value, op)
        case "contains" if column.is_array:
            return SQL("{} = any({})").format(Placeholder(), name), [scalar(value)]
        case "contains" if column.is_json:
            text = bound(column, value)
            return SQL("{}::jsonb @> {}::jsonb").format(name, Placeholder()), [text]
        case "contains" | "starts_with" as op:
            return _IN_TEXT[op].format(name, Placeholder()), [scalar(value)]
    compared = _COMPARED.get(wanted.op)
    if compared is None:
        raise InputError(f"{wanted.op!r} is no way to compare.")
    return compared.format(name, Placeholder()), [bound(column, value)]


def _one_of(column: Column, value: Json, op: str) -> Term:
    if not isinstance(value, list):
        raise InputError(f"{column.name}: {op} compares with a list.")
    if not value:
        return SQL("false" if op == "in" else "true"), []
    places: Composed = SQL(", ").join(Placeholder() for _ in value)
    way = SQL("{} in ({})") if op == "in" else SQL("({} in ({})) is not true")
    return way.format(_of(column), places), [bound(column, each) for each in value]
