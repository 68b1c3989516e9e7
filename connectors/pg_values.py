"""Values of PostgreSQL in its text format, as JSON.

The session that sends them must use UTF-8, ISO dates and UTC (`SESSION`). Numbers follow
connectors/lossless.py; json and jsonb are parsed; bytea becomes base64, a timestamp ISO 8601 (with
`Z` if it has a zone), an array an array. Every other type (uuid, inet, interval, ranges, enums,
composites, …) keeps its text, as do infinity and times before Christ.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable

from psycopg.postgres import types as builtin

from connectors import lossless
from permaflow.plan import Json

Read = Callable[[bytes], Json]

SESSION = {
    "client_encoding": "UTF8",
    "options": "-c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 "
    "-c extra_float_digits=1 -c bytea_output=hex",
}

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)|,|(\{)|(\})', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def text(raw: bytes) -> str:
    return raw.decode()


def _bool(raw: bytes) -> bool:
    return raw == b"t"


def _number(raw: bytes) -> Json:
    return lossless.number(raw.decode())


def _float(raw: bytes) -> Json:
    return lossless.floating(raw.decode())


def _bytes(raw: bytes) -> str:
    return base64.b64encode(bytes.fromhex(raw[2:].decode())).decode()


def _timestamp(raw: bytes) -> str:
    value = raw.decode()
    return value if value.endswith("BC") else value.replace(" ", "T", 1)


def _timestamptz(raw: bytes) -> str:
    value = raw.decode()
    return value[:-3].replace(" ", "T", 1) + "Z" if value.endswith("+00") else value


_READERS: dict[str, Read] = {
    "int2": int,
    "int4": int,
    "int8": int,
    "oid": int,
    "bool": _bool,
    "numeric": _number,
    "float4": _float,
    "float8": _float,
    "json": lossless.parse,
    "jsonb": lossless.parse,
    "bytea": _bytes,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}


class Types:
    """How to read each type, by oid. Types that are not built in have to be learnt first."""

    def __init__(self) -> None:
        self._readers: dict[int, Read] = {}
        for info in builtin:
            read = _READERS.get(info.name, text)
            self._readers[info.oid] = read
            if info.array_oid:
                delimiter = getattr(info, "delimiter", ",")
                self._readers[info.array_oid] = _array(read, delimiter)

    def unknown(self, oids: Iterable[int]) -> list[int]:
        return [oid for oid in oids if oid not in self._readers]

    def learn(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Rows of (oid, base type of a domain or 0, element type of an array or 0)."""
        known = {oid: (base, element) for oid, base, element in rows}
        for oid in known:
            self._readers[oid] = self._make(oid, known)

    def _make(self, oid: int, known: dict[int, tuple[int, int]]) -> Read:
        read = self._readers.get(oid)
        if read is not None:
            return read
        base, element = known.get(oid, (0, 0))
        if base:
            return self._make(base, known)
        return _array(self._make(element, known)) if element else text

    def reader(self, oid: int) -> Read:
        """Types that nobody taught keep their text."""
        return self._readers.get(oid, text)


def _array(read: Read, delimiter: str = ",") -> Read:
    return lambda raw: read_array(raw.decode(), read, delimiter)


def read_array(value: str, read: Read, delimiter: str = ",") -> Json:
    """`{1,NULL,"a b"}`, of any depth; bounds other than 1 are dropped."""
    if value.startswith("["):
        value = value[value.index("=") + 1 :]
    if delimiter != ",":
        # Only box has another delimiter, and its elements hold commas.
        inner = value[1:-1]
        return [read(part.encode()) for part in inner.split(delimiter)] if inner else []
    outer: list[Json] = []
    stack = [outer]
    for found in _TOKEN.finditer(value):
        match found.lastindex:
            case 1:
                stack[-1].append(read(_ESCAPED.sub(r"\1", found[1]).encode()))
            case 2:
                item = found[2]
                stack[-1].append(None if item == "NULL" else read(item.encode()))
            case 3:
                inside: list[Json] = []
                stack[-1].append(inside)
                stack.append(inside)
            case 4:
                stack.pop()
    return outer[0]
