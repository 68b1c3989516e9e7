"""The schemas of Kafka Connect's JSON converter: what a field's JSON stands for.

With `schemas.enable=true` every message carries its schema. `readers` compiles the part that
describes a row into the few functions that its fields need; a field that already is plain JSON
needs none. Logical types: https://debezium.io/documentation/reference/stable/connectors/postgresql.html
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from connectors import lossless
from permaflow.plan import Json

Read = Callable[[Any], Json]
Readers = tuple[tuple[str, Read], ...]

_MS, _US, _NS = 1_000_000, 1_000, 1


def readers(schema: Json) -> Readers:
    """The fields of a struct schema that need reading, each with its function."""
    fields = schema.get("fields") if isinstance(schema, dict) else None
    found = []
    for field in fields or ():
        read = _reader(field)
        if read is not None:
            found.append((field["field"], read))
    return tuple(found)


def member(schema: Json, *names: str) -> Json:
    """The schema of the first member of a struct that has one of these names, or None."""
    fields = schema.get("fields") if isinstance(schema, dict) else None
    known = {field.get("field"): field for field in fields or ()}
    return next((known[name] for name in names if name in known), None)


def apply(table: Readers, row: dict[str, Json]) -> None:
    """Read the fields of `row` in place. Raises ValueError that names the field at fault."""
    for name, read in table:
        value = row.get(name)
        if value is not None:
            try:
                row[name] = read(value)
            except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
                raise ValueError(f"field {name!r} is not what its schema says: {error}") from error


def _reader(schema: dict[str, Any]) -> Read | None:
    logical = schema.get("name") or ""
    if logical == "org.apache.kafka.connect.data.Decimal":
        scale = int((schema.get("parameters") or {}).get("scale", 0))
        return lambda value: _unscaled(value, scale)
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    match schema.get("type"):
        case "array":
            return _each(_reader(schema.get("items") or {}))
        case "map":
            return _values(_reader(schema.get("values") or {}))
        case "struct":
            return _struct(readers(schema))
    return None


def _each(read: Read | None) -> Read | None:
    if read is None:
        return None
    return lambda items: [None if item is None else read(item) for item in items]


def _values(read: Read | None) -> Read | None:
    if read is None:
        return None
    return lambda members: {k: None if v is None else read(v) for k, v in members.items()}


def _struct(table: Readers) -> Read | None:
    if not table:
        return None

    def read(row: dict[str, Json]) -> Json:
        apply(table, row)
        return row

    return read


def _unscaled(value: str, scale: int) -> Json:
    """Base64 of a big-endian two's complement integer, and how many of its digits are decimals."""
    unscaled = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
    if scale == 0 and lossless.SMALLEST <= unscaled <= lossless.LARGEST:
        return unscaled
    sign, digits = int(unscaled < 0), tuple(map(int, str(abs(unscaled))))
    return lossless.of_decimal(Decimal((sign, digits, -scale)))


def _variable(value: dict[str, Any]) -> Json:
    return _unscaled(value["value"], value["scale"])


def _json(value: str) -> Json:
    return lossless.parse(value.encode())


def _date(days: int) -> Json:
    return _within(lossless.iso_date, days, days)


def _timestamp(unit: int) -> Read:
    return lambda value: _within(lossless.iso_timestamp, value * unit, value)


def _time(unit: int) -> Read:
    return lambda value: lossless.iso_time(value * unit)


def _within(read: Callable[[int], str], value: int, raw: int) -> Json:
    """Times that ISO 8601 cannot write (year 10000, infinity) stay the number that came."""
    try:
        return read(value)
    except (OverflowError, ValueError):
        return raw


_LOGICAL: dict[str, Read] = {
    "io.debezium.data.VariableScaleDecimal": _variable,
    "io.debezium.data.Json": _json,
    "io.debezium.time.Date": _date,
    "org.apache.kafka.connect.data.Date": _date,
    "io.debezium.time.Time": _time(_MS),
    "org.apache.kafka.connect.data.Time": _time(_MS),
    "io.debezium.time.MicroTime": _time(_US),
    "io.debezium.time.NanoTime": _time(_NS),
    "io.debezium.time.Timestamp": _timestamp(_MS),
    "org.apache.kafka.connect.data.Timestamp": _timestamp(_MS),
    "io.debezium.time.MicroTimestamp": _timestamp(_US),
    "io.debezium.time.NanoTimestamp": _timestamp(_NS),
}
