"""Groups of users: whom an approval may ask by one name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from permaflow.errors import NotFoundError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

_PUT = query("groups.put")
_REMOVE_MEMBERS = query("groups.remove_members")
_ADD_MEMBERS = query("groups.add_members")
_GET = query("groups.get")
_LIST = query("groups.list")
_DELETE = query("groups.delete")


@dataclass(frozen=True, slots=True)
class Group:
    """A group and its members, by name."""

    name: str
    members: list[str]
    created_at: datetime
    updated_at: datetime


async def put(
    connection: Connection, org: UUID, name: str, members: Sequence[str]
) -> tuple[Group, bool]:
    """Gives a group these members and no others. True if it was not there before."""
    values = {"org": org, "name": name, "people": list(members)}
    row = await (await connection.execute(_PUT, values)).fetchone()
    assert row is not None
    await connection.execute(_REMOVE_MEMBERS, values)
    await connection.execute(_ADD_MEMBERS, values)
    return await get(connection, org, name), row[2]


async def get(connection: Connection, org: UUID, name: str) -> Group:
    group = await one(connection, Group, _GET, {"org": org, "name": name})
    if group is None:
        raise NotFoundError(f"There is no group {name!r}.")
    return group


async def find(
    connection: Connection, org: UUID, *, after: str | None = None, limit: int = 50
) -> list[Group]:
    """Groups by name."""
    return await every(connection, Group, _LIST, {"org": org, "after": after, "limit": limit})


async def delete(connection: Connection, org: UUID, name: str) -> None:
    """Removes a group. What it was asked waits for the others, or for its timeout."""
    cursor = await connection.execute(_DELETE, {"org": org, "name": name})
    if not cursor.rowcount:
        raise NotFoundError(f"There is no group {name!r}.")
