"""The built-in store of documents, by object and id, of one organisation.

Every change is a change record for whoever follows the database (`replica identity full`), so
writing here can start workflows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from permaflow.errors import InputError, LimitError, StateError
from permaflow.plan import Json
from permaflow.ports import Filter, Order
from permaflow.values import plain
from pipeline.store.database import Connection, Database
from pipeline.store.json_values import raw, to_json
from pipeline.store.queries import query
from pipeline.store.rows import every, one

T = TypeVar("T")

_TELL_CAUSE = query("records.tell_cause")
_INSERT = query("records.insert")
_GET = query("records.get")
_UPDATE = query("records.update")
_DELETE = query("records.delete")
_LIST = query("records.list")
_QUERY = query("records.query")
_BY_ID = Order("$id")
_OBJECTS = query("records.objects")
_ATTRIBUTES = query("records.attributes")
_TURN = query("records.turn")
_TURN_TAKEN = query("records.turn_taken")

_LONGEST_NAME = 500
LARGEST = 1_000_000
"""Bytes of the data of a record, as JSON, however many writes they came in."""


@dataclass(frozen=True, slots=True)
class Record:
    """A document. `version` grows by one with each update."""

    id: str
    object: str
    data: dict[str, Json]
    version: int
    created_at: datetime
    updated_at: datetime

    def json(self) -> dict[str, Json]:
        """As a JSON value."""
        return {
            "id": self.id,
            "object": self.object,
            "data": self.data,
            "version": self.version,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


async def create(
    connection: Connection,
    org: UUID,
    object_name: str,
    data: Mapping[str, Json],
    record_id: str | None = None,
) -> tuple[Record, bool]:
    """A new record, and True; the one that has this id already, unchanged, and False.

    Raises `InputError` for what cannot be stored.
    """
    for name in (object_name, record_id):
        if name is not None and not 1 <= len(name) <= _LONGEST_NAME:
            raise InputError(
                f"The name of an object and the id of a record have 1 to {_LONGEST_NAME} "
                f"characters, not {len(name)}."
            )
    wanted = str(uuid7()) if record_id is None else record_id
    values = _key(org, object_name, wanted) | {"data": _text(data)}
    made = await one(connection, Record, _INSERT, values)
    if made is not None:
        return made, True
    found = await get(connection, org, object_name, wanted)
    if found is None:
        raise StateError(f"The record {wanted} was deleted at this moment. Try again.")
    return found, False


async def get(connection: Connection, org: UUID, object_name: str, record_id: str) -> Record | None:
    """One record, or None."""
    return await one(connection, Record, _GET, _key(org, object_name, record_id))


async def update(
    connection: Connection,
    org: UUID,
    object_name: str,
    record_id: str,
    data: Mapping[str, Json],
    *,
    merge: bool = True,
    expected: int | None = None,
) -> Record | None:
    """Sets these fields and keeps the others (`merge`), or replaces all; None if it is not there.

    Raises `InputError` for what cannot be stored, `StateError` if its version is not `expected`.
    """
    values = _key(org, object_name, record_id)
    values |= {"data": _text(data), "merge": merge, "expected": expected}
    changed = await one(connection, Record, _UPDATE, values)
    if changed is None and expected is not None:
        found = await get(connection, org, object_name, record_id)
        if found is not None:
            raise StateError(
                f"The record is at version {found.version}, not {expected}: somebody changed it. "
                "Load it and apply the change again."
            )
    if changed is not None and merge:
        _check_size(len(to_json(changed.data)))
    return changed


async def upsert(
    connection: Connection,
    org: UUID,
    object_name: str,
    record_id: str,
    data: Mapping[str, Json],
    *,
    merge: bool = True,
) -> tuple[Record, bool]:
    """`update`, and False; if it is not there, the new record, and True. Raises like `create`."""
    for _ in range(3):
        changed = await update(connection, org, object_name, record_id, data, merge=merge)
        if changed is not None:
            return changed, False
        made, fresh = await create(connection, org, object_name, data, record_id)
        if fresh:
            return made, True
    raise StateError(f"The record {record_id} comes and goes at this moment. Try again.")


async def search(
    connection: Connection,
    org: UUID,
    object_name: str,
    filters: Sequence[Filter] = (),
    order: Sequence[Order] = (),
    limit: int = 100,
) -> list[Record]:
    """Records that pass all filters, sorted by up to two fields, then by their ids."""
    if len(order) > 2:
        raise InputError("Records are sorted by two fields at most.")
    wanted = [
        {"path": each.field.split("."), "op": each.op, "value": each.value} for each in filters
    ]
    first, second = [*order, _BY_ID, _BY_ID][:2]
    values = {
        "org": org,
        "object": object_name,
        "filters": raw(to_json(plain(wanted))),
        "sort_1": first.field.split("."),
        "down_1": first.descending,
        "sort_2": second.field.split("."),
        "down_2": second.descending,
        "limit": limit,
    }
    return await every(connection, Record, _QUERY, values)


async def delete(
    connection: Connection,
    org: UUID,
    object_name: str,
    record_id: str,
    *,
    expected: int | None = None,
) -> bool:
    """Removes a record; False if it is not there, or its version is not `expected`."""
    values = _key(org, object_name, record_id) | {"expected": expected}
    cursor = await connection.execute(_DELETE, values)
    return cursor.rowcount > 0


async def find(
    connection: Connection, org: UUID, object_name: str, *, after: str = "", limit: int = 50
) -> list[Record]:
    """Records of an object by id. For the next page `after` is the last id of this one."""
    values = {"org": org, "object": object_name, "after": after, "limit": limit}
    return await every(connection, Record, _LIST, values)


async def objects(connection: Connection, org: UUID, *, limit: int = 1_000) -> list[str]:
    """The objects that have records."""
    cursor = await connection.execute(_OBJECTS, {"org": org, "limit": limit})
    return [name for (name,) in await cursor.fetchall()]


async def attributes(
    connection: Connection, org: UUID, object_name: str, *, sample: int = 200, limit: int = 1_000
) -> list[str]:
    """The names that the data of `sample` records have: the latest, by their ids."""
    values = {"org": org, "object": object_name, "sample": sample, "limit": limit}
    cursor = await connection.execute(_ATTRIBUTES, values)
    return [name for (name,) in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class _Turn:
    number: int | None


async def turn(
    connection: Connection, org: UUID, object_name: str, record_id: str, key: str
) -> int:
    """The next number of a rotation, from 0; the same for a key that has got one lately.

    The rotation is a record, `{"next": …, "turns": {key: number}}`; whoever deletes it begins anew.
    """
    values = _key(org, object_name, record_id) | {"key": key}
    found = await one(connection, _Turn, _TURN, values)
    if found is None:
        found = await one(connection, _Turn, _TURN_TAKEN, values)
    if found is None or found.number is None:
        raise StateError(f"The rotation {record_id} was deleted at this moment. Try again.")
    return found.number


class RecordStore:
    """What a task sees of the records of its organisation (`permaflow.task.Records`).

    `run_id` is the run that writes: whoever follows the changes learns of it.
    """

    def __init__(self, database: Database, org: UUID, run_id: UUID | None = None) -> None:
        self._database = database
        self._org = org
        self._run_id = run_id

    async def create(
        self, object_name: str, data: Mapping[str, Json], *, record_id: str | None
    ) -> Json:
        record, _ = await self._write(
            partial(create, org=self._org, object_name=object_name, data=data, record_id=record_id)
        )
        return record.json()

    async def get(self, object_name: str, record_id: str) -> Json | None:
        record = await self._database.run_as(self._org, get, self._org, object_name, record_id)
        return record.json() if record else None

    async def update(
        self, object_name: str, record_id: str, data: Mapping[str, Json]
    ) -> Json | None:
        record = await self._write(
            partial(update, org=self._org, object_name=object_name, record_id=record_id, data=data)
        )
        return record.json() if record else None

    async def upsert(self, object_name: str, record_id: str, data: Mapping[str, Json]) -> Json:
        record, _ = await self._write(
            partial(upsert, org=self._org, object_name=object_name, record_id=record_id, data=data)
        )
        return record.json()

    async def query(
        self,
        object_name: str,
        filters: Sequence[Filter] = (),
        order: Sequence[Order] = (),
        limit: int = 100,
    ) -> list[Json]:
        found = await self._database.run_as(
            self._org, search, self._org, object_name, filters, order, limit
        )
        return [record.json() for record in found]

    async def find(self, object_name: str, *, after: str = "", limit: int = 100) -> list[Json]:
        found = partial(find, org=self._org, object_name=object_name, after=after, limit=limit)
        return [record.json() for record in await self._database.run_as(self._org, found)]

    async def turn(self, object_name: str, record_id: str, key: str) -> int:
        return await self._write(
            partial(turn, org=self._org, object_name=object_name, record_id=record_id, key=key)
        )

    async def delete(self, object_name: str, record_id: str) -> bool:
        return await self._write(
            partial(delete, org=self._org, object_name=object_name, record_id=record_id)
        )

    async def _write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._database.run_as(self._org, _caused, self._run_id, work)


async def _caused(
    connection: Connection, run_id: UUID | None, work: Callable[[Connection], Awaitable[T]]
) -> T:
    if run_id is not None:
        await connection.execute(_TELL_CAUSE, {"run_id": str(run_id)})
    return await work(connection)


def _key(org: UUID, object_name: str, record_id: str) -> dict[str, Any]:
    return {"org": org, "object": object_name, "id": record_id}


def _text(data: Mapping[str, Json]) -> Any:
    if not isinstance(data, Mapping):
        raise InputError("The data of a record is an object.")
    text = to_json(plain(dict(data)))
    _check_size(len(text))
    return raw(text)


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise LimitError(
            f"The data of the record would take {size:,} bytes; at most {LARGEST:,} are allowed."
        )
