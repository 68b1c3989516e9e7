"""Messages that could not be read, as they came, so that somebody can look and send them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from permaflow.errors import NotFoundError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every

_INSERT = query("dead_letters.insert")
_LIST = query("dead_letters.list")
_RAW = query("dead_letters.raw")
_DELETE = query("dead_letters.delete")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that could not be read. `position` is where it stood in its source.

    `org` is None where it could not be told.
    """

    source: str
    position: str
    reason: str
    raw: bytes
    org: UUID | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A stored message without its bytes; `size` is how many there are."""

    id: UUID
    org: UUID | None
    source: str
    position: str
    reason: str
    size: int
    at: datetime


async def add(connection: Connection, letters: Sequence[Unreadable]) -> list[UUID]:
    """Keeps messages; answers their ids."""
    ids = [uuid7() for _ in letters]
    values = {
        "ids": ids,
        "orgs": [letter.org for letter in letters],
        "sources": [letter.source for letter in letters],
        "positions": [letter.position for letter in letters],
        "reasons": [_storable(letter.reason) for letter in letters],
        "raws": [letter.raw for letter in letters],
    }
    await connection.execute(_INSERT, values)
    return ids


async def find(
    connection: Connection,
    *,
    org: UUID | None = None,
    source: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[DeadLetter]:
    """Messages, newest first; of every organisation without `org`."""
    values = {"org": org, "source": source, "before": before, "limit": limit}
    return await every(connection, DeadLetter, _LIST, values)


async def content(connection: Connection, letter_id: UUID) -> bytes:
    """The bytes as they came. Raises `NotFoundError`."""
    row = await (await connection.execute(_RAW, {"id": letter_id}, binary=True)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no dead letter {letter_id}.")
    return bytes(row[0])


async def remove(connection: Connection, ids: Sequence[UUID]) -> int:
    """Removes messages that have been dealt with; answers how many there were."""
    return (await connection.execute(_DELETE, {"ids": list(ids)})).rowcount


def _storable(reason: str) -> str:
    """A reason may quote the message, and with it what a text column cannot hold."""
    return reason.replace("\0", "␀").encode(errors="replace").decode()[:2000]
