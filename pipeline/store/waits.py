"""Runs that wait until a record meets conditions: one row for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from permaflow.plan import Json
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

_GLANCE = query("waits.glance")
_OF_RECORDS = query("waits.of_records")
_BEGUN = query("waits.begun")
_LOOKED = query("waits.looked")
_LOOK_AGAIN = query("waits.look_again")
_LOOK_AT_ALL = query("waits.look_at_all")
_OBJECTS = query("waits.objects")


@dataclass(frozen=True, slots=True)
class Glance:
    """One cheap look. `begun`: there is a wait that nobody has looked at since it began.

    `objects` are those, of the ones asked for, that somebody waits for.
    """

    generation: int
    begun: bool
    objects: list[str]


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for a record since a moment, in milliseconds since 1970. `conditions` is JSON text,
    as in the table of triggers.
    """

    question_id: UUID
    org: UUID
    object: str
    record_id: str
    conditions: bytes
    since: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A wait that has begun. `record` is the built-in record that it is about, if there is one."""

    question_id: UUID
    org: UUID
    object: str
    record_id: str
    conditions: bytes
    record: dict[str, Json] | None


async def glance(connection: Connection, objects: Iterable[str] = ()) -> Glance:
    """The generation of the triggers, and whether there is anything to do for waits."""
    seen = await one(connection, Glance, _GLANCE, {"objects": list(objects)})
    assert seen is not None
    return seen


async def of_records(connection: Connection, records: Iterable[tuple[str, str]]) -> list[Wait]:
    """The waits for these records, `(object, id)`, of every organisation."""
    wanted = list(records)
    values = {"objects": [name for name, _ in wanted], "ids": [key for _, key in wanted]}
    return await every(connection, Wait, _OF_RECORDS, values)


async def begun(connection: Connection, limit: int) -> list[Begun]:
    """Waits that nobody has looked at since they began, oldest first."""
    return await every(connection, Begun, _BEGUN, {"limit": limit})


async def looked(connection: Connection, ids: Sequence[UUID]) -> None:
    """These waits need no further look."""
    await connection.execute(_LOOKED, {"ids": list(ids)})


async def look_again(connection: Connection, ids: Sequence[UUID]) -> None:
    """These waits need another look."""
    await connection.execute(_LOOK_AGAIN, {"ids": list(ids)})


async def look_at_all(connection: Connection) -> None:
    """Changes were lost: every wait needs another look."""
    await connection.execute(_LOOK_AT_ALL)


async def objects(connection: Connection) -> list[str]:
    """Every object that somebody waits for changes of."""
    cursor = await connection.execute(_OBJECTS)
    return [name for (name,) in await cursor.fetchall()]
