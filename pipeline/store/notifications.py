"""What people are told, one row for each of them.

The notifications of a user are numbered in the order in which they are committed, so whoever has
read up to a number has missed nothing below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from permaflow.errors import InputError, NotFoundError
from permaflow.ports import Notice
from permaflow.values import plain
from pipeline.store.database import Connection, Database
from pipeline.store.json_values import raw, to_json
from pipeline.store.queries import query
from pipeline.store.rows import every

_ADD = query("notifications.add")
_AFTER = query("notifications.after")
_UNREAD = query("notifications.unread")
_LIST = query("notifications.list")
_LAST = query("notifications.last")
_MARK = query("notifications.mark")
_MARK_ALL = query("notifications.mark_all")

_IDS = UUID("0f3b4a34-5a39-5d84-9a43-8f0b0f8d4f4c")
LONGEST_USER = 320


@dataclass(frozen=True, slots=True)
class Notification:
    """What a user was told; `data` is JSON text."""

    id: UUID
    seq: int
    title: str
    description: str
    link: str
    data: bytes
    run_id: UUID | None
    at: datetime
    read_at: datetime | None


async def add(
    connection: Connection,
    org: UUID,
    users: Sequence[str],
    notice: Notice,
    *,
    key: str,
    run_id: UUID | None = None,
) -> list[str]:
    """Tell these users; answers those to whom it is new. What has the same `key` is the same.

    Raises `InputError` for what cannot be stored.
    """
    for user in users:
        if not 1 <= len(user) <= LONGEST_USER or not user.isprintable():
            raise InputError(f"A user has a name of 1 to {LONGEST_USER} printable characters.")
    wanted = sorted(set(users))
    values = {
        "org": org,
        "ids": [notification_id(key, user) for user in wanted],
        "users": wanted,
        "title": notice.title,
        "description": notice.description,
        "link": notice.link,
        "data": raw(to_json(plain(notice.data))),
        "run_id": run_id,
    }
    return [row[0] for row in await (await connection.execute(_ADD, values)).fetchall()]


def notification_id(key: str, user: str) -> UUID:
    return uuid5(_IDS, f"{len(key)}:{key}:{user}")


async def after(
    connection: Connection, org: UUID, user: str, seq: int, limit: int
) -> list[Notification]:
    """What a user got after this one, in order."""
    values = {"org": org, "user": user, "after": seq, "limit": limit}
    return await every(connection, Notification, _AFTER, values)


async def unread(
    connection: Connection, org: UUID, user: str, seq: int, limit: int
) -> list[Notification]:
    """What a user has not read yet, in order, after this one."""
    values = {"org": org, "user": user, "after": seq, "limit": limit}
    return await every(connection, Notification, _UNREAD, values)


async def find(
    connection: Connection,
    org: UUID,
    user: str,
    *,
    only_unread: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[Notification]:
    """What a user got, newest first."""
    values = {"org": org, "user": user, "unread": only_unread, "before": before, "limit": limit}
    return await every(connection, Notification, _LIST, values)


async def last(connection: Connection, org: UUID, user: str) -> int:
    """The number of the last one that a user got; 0 if there is none."""
    row = await (await connection.execute(_LAST, {"org": org, "user": user})).fetchone()
    return int(row[0]) if row else 0


async def mark(connection: Connection, org: UUID, user: str, notification: UUID) -> None:
    """It was read. Raises `NotFoundError`."""
    values = {"org": org, "user": user, "id": notification}
    if (await connection.execute(_MARK, values)).rowcount == 0:
        raise NotFoundError(f"There is no notification {notification}.")


async def mark_all(connection: Connection, org: UUID, user: str, upto: int) -> int:
    """All up to this one were read; answers how many were not before."""
    values = {"org": org, "user": user, "upto": upto}
    return (await connection.execute(_MARK_ALL, values)).rowcount


class NotificationStore:
    """What a task of a run sees of it (`permaflow.ports.Notifications`).

    `ring` is called with the users to whom something is new, once it is committed.
    """

    __slots__ = ("_database", "_org", "_ring", "_run_id")

    def __init__(
        self, database: Database, org: UUID, run_id: UUID, ring: Callable[[list[str]], None]
    ) -> None:
        self._database = database
        self._org = org
        self._run_id = run_id
        self._ring = ring

    async def add(self, users: Sequence[str], notice: Notice, *, key: str) -> int:
        told = await self._database.run_as(
            self._org, add, self._org, users, notice, key=key, run_id=self._run_id
        )
        if told:
            self._ring(told)
        return len(told)
