"""What tells one change from every other: the id of the event.

A source that restarts tells of the last changes again, and Debezium does so at new offsets. So the
id is made of what the database itself says of the change:

* PostgreSQL: source name, log position, transaction, operation, table and primary key. Rows of one
  INSERT share the log position, hence the key. A table without one needs the transaction metadata
  of the connector (`provide.transaction.metadata`); without it there is no such id.
* MySQL and MariaDB: gtid, file, position and row. SQL Server: change and serial number.
* Other databases: no such id. Where there is none, the place of the message stands in, which is
  weaker: a change that is sent again counts as another one.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from permaflow.plan import Json


def event_id(
    source: Mapping[str, Json],
    op: str,
    table: str,
    key: str,
    order: Mapping[str, Json] | None = None,
) -> str | None:
    """The id that a source block gives, or None; `order` is the transaction block."""
    name = source.get("name", "")
    if (lsn := source.get("lsn")) is not None:
        if not key and order:
            key = f"#{order.get('total_order')}"
        return f"{name}:{lsn}:{source.get('txId')}:{op}:{table}:{key}" if key else None
    if (position := source.get("pos")) is not None:
        place = f"{source.get('gtid')}:{source.get('file')}:{position}:{source.get('row')}"
    elif (change := source.get("change_lsn")) is not None:
        place = f"{change}:{source.get('event_serial_no')}"
    else:
        return None
    return f"{name}:{place}:{op}:{table}:{key}"


def key_text(key: bytes | None) -> str:
    """The primary key of a message as text: its only value, or a JSON array of its values."""
    if not key:
        return ""
    try:
        row = orjson.loads(key)
    except orjson.JSONDecodeError:
        return key.decode(errors="backslashreplace")
    if isinstance(row, dict):
        if "payload" in row and isinstance(row["payload"], dict):
            row = row["payload"]
        return key_of(list(row.values()))
    return "" if row is None else key_of([row])


def key_of(values: list[Json]) -> str:
    """The values of a primary key as text."""
    value = values[0] if len(values) == 1 else values
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def key_row(key: bytes | None) -> dict[str, Json]:
    """What the key of a message tells of a row that the message does not hold."""
    try:
        row = orjson.loads(key or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return unwrapped(row) if isinstance(row, dict) else {}


def unwrapped(document: dict[str, Json]) -> dict[str, Json]:
    """A row without the schema around it."""
    if "schema" in document and isinstance(document.get("payload"), dict):
        document = document["payload"]
    return dict(document)
