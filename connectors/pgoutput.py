"""The messages of PostgreSQL's own replication plug-in, as change records. Pure.

Format: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html (version 1)

An event's id is `<log position>/<transaction>/<operation>/<schema.table>/<key>`, where the key is
that of the row, or `#<n>` for row n at this position if the table's replica identity names none.
All of it is read from the log, so a change that is decoded again has the same id.

* REPLICA IDENTITY FULL: `before` is the whole row, and the values that an update left out as
  unchanged (TOAST) are taken from there.
* Otherwise `before` is None, or the old key where the key changed; values that were left out are
  `unavailable`, as is all of a deleted row but its key.
* An UPDATE of a primary key is one change, `updated`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from struct import Struct
from uuid import UUID

from connectors import identity
from connectors.pg_values import Read, Types
from permaflow.changes import CREATED, DELETED, UPDATED, ChangeRecord, Rejected
from permaflow.plan import Json

_BEGIN = Struct("!QQI")
_COMMIT = Struct("!BQQQ")
_INT16 = Struct("!h").unpack_from
_INT32 = Struct("!I").unpack_from
_COLUMN = Struct("!Ii").unpack_from
_LENGTH = Struct("!i").unpack_from

_EPOCH_MS = 946_684_800_000  # 2000-01-01, where PostgreSQL counts from

BEGIN, COMMIT, RELATION, TRUNCATE, MESSAGE = b"BCRTM"
_INSERT, _UPDATE, _DELETE = b"IUD"
CHANGES = frozenset({_INSERT, _UPDATE, _DELETE})
_NULL, _UNCHANGED, _TEXT = b"nut"
_OLD = _OLD_ROW, _OLD_KEY = b"OK"
_FULL = b"f"[0]

CAUSE = b"permaflow.cause"
"""Prefix of the message with which a run that writes says who it is, ahead of its changes."""

_NOTHING: frozenset[str] = frozenset()
Shape = Callable[[ChangeRecord], ChangeRecord]


@dataclass(slots=True)
class Relation:
    """A table as it was when the change was written. `key` are names, in the order of the table."""

    id: int
    namespace: str
    name: str
    full: bool
    columns: tuple[str, ...]
    types: tuple[int, ...]
    identity: tuple[str, ...]
    key: tuple[str, ...]
    readers: tuple[Read, ...] = ()


class _Unchanged:
    __slots__ = ()


_LEFT_OUT = _Unchanged()


@dataclass(slots=True)
class PgOutput:
    """Decodes one stream. `shape` may turn each change into what it stands for."""

    source: str
    types: Types
    shape: Shape | None = None
    org: str = ""
    transaction: int = 0
    cause: str = ""
    _at: int = 0
    _place: int = -1
    _row: int = 0
    _relations: dict[int, Relation] = field(default_factory=dict)

    def begin(self, data: bytes) -> None:
        _, committed, self.transaction = _BEGIN.unpack_from(data, 1)
        self._at = committed // 1000 + _EPOCH_MS
        self._place = -1
        self.cause = ""

    def told(self, data: bytes) -> None:
        """A message that somebody wrote to the log: one of `CAUSE` is about its transaction."""
        end = data.index(0, 10)
        if data[1] & 1 and data[10:end] == CAUSE and len(data) == end + 41:
            with contextlib.suppress(ValueError):
                self.cause = str(UUID(data[end + 5 :].decode("ascii")))

    def end(self, data: bytes) -> int:
        """The position after a commit."""
        self.transaction = 0
        position: int = _COMMIT.unpack_from(data, 1)[2]
        return position

    def relate(self, data: bytes) -> Relation:
        """What a relation message says; `admit` it before its first change."""
        (oid,) = _INT32(data, 1)
        namespace, place = _name(data, 5)
        name, place = _name(data, place)
        full = data[place] == _FULL
        (count,) = _INT16(data, place + 1)
        place += 3
        columns, types, key = [], [], []
        for _ in range(count):
            is_key = data[place] & 1
            column, place = _name(data, place + 1)
            columns.append(column)
            types.append(_COLUMN(data, place)[0])
            place += 8
            if is_key:
                key.append(column)
        names = () if full else tuple(key)
        return Relation(
            oid, namespace or "pg_catalog", name, full, tuple(columns), tuple(types), names, names
        )

    def admit(self, relation: Relation) -> None:
        relation.readers = tuple(self.types.reader(oid) for oid in relation.types)
        self._relations[relation.id] = relation

    def change(self, position: int, data: bytes) -> ChangeRecord | Rejected:
        """An insert, update or delete. Never raises for what the row holds."""
        self._row = self._row + 1 if position == self._place else 0
        self._place = position
        try:
            change = self._change(position, data)
            return change if self.shape is None else self.shape(change)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            relation = self._relations.get(_INT32(data, 1)[0])
            table = f"{relation.namespace}.{relation.name}" if relation is not None else "?"
            reason = f"A row of {table} cannot be read: {error}"
            return Rejected(data, reason, f"{position:X}/{self.transaction}/{self._row}")

    def _change(self, position: int, data: bytes) -> ChangeRecord:
        relation = self._relations[_INT32(data, 1)[0]]
        kind, mark, place = data[0], data[5], 6
        before: dict[str, Json] | None = None
        record: dict[str, Json] = {}
        missing = _NOTHING
        if mark in _OLD:
            before, place = _tuple(relation, data, place)
            place += 1
            if mark == _OLD_KEY:
                before = {name: before[name] for name in relation.identity}
        if kind == _DELETE:
            event, op = DELETED, "d"
            record = before or {}
            if not relation.full:
                missing = frozenset(relation.columns) - record.keys()
        else:
            event, op = (CREATED, "c") if kind == _INSERT else (UPDATED, "u")
            record, _ = _tuple(relation, data, place)
            if _LEFT_OUT in record.values():
                missing = _fill(record, before if relation.full else None)
        key = identity.key_of([record.get(name) for name in relation.key]) if relation.key else ""
        table = f"{relation.namespace}.{relation.name}"
        row = key if relation.identity else f"#{self._row}"
        return ChangeRecord(
            self.source,
            f"{position:X}/{self.transaction}/{op}/{table}/{row}",
            relation.name,
            event,
            record,
            before,
            relation.namespace,
            key,
            self.org,
            self._at,
            False,
            missing,
            self.cause,
        )


def _fill(record: dict[str, Json], before: dict[str, Json] | None) -> frozenset[str]:
    """Put in what an update left out, as far as it is known; gives the names of the rest."""
    left_out = [name for name, value in record.items() if value is _LEFT_OUT]
    missing = set()
    for name in left_out:
        if before is not None and name in before:
            record[name] = before[name]
        else:
            del record[name]
            missing.add(name)
    return frozenset(missing)


def _tuple(relation: Relation, data: bytes, place: int) -> tuple[dict[str, Json], int]:
    """The values of a row by name, and where the message goes on."""
    (count,) = _INT16(data, place)
    place += 2
    row: dict[str, Json] = {}
    columns: Sequence[str] = relation.columns
    readers = relation.readers
    for number in range(count):
        kind = data[place]
        place += 1
        if kind == _TEXT:
            start = place + 4
            place = start + _LENGTH(data, place)[0]
            row[columns[number]] = readers[number](data[start:place])
        elif kind == _NULL:
            row[columns[number]] = None
        elif kind == _UNCHANGED:
            row[columns[number]] = _LEFT_OUT
        else:
            raise ValueError(f"column {columns[number]!r} is in a format that was not asked for")
    return row, place


def _name(data: bytes, place: int) -> tuple[str, int]:
    end = data.index(0, place)
    return data[place:end].decode(), end + 1
