"""The PostgreSQL server itself: is it set up as Permaflow needs it, and who lags behind."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

OLDEST = 150_000
"""PostgreSQL 15."""

_SETTINGS = query("server.settings")
_SLOTS = query("server.slots")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`clock` is the server's, in seconds since 1970."""

    version: str
    version_number: int
    wal_level: str
    fsync: str
    full_page_writes: str
    max_slots: int
    clock: float


@dataclass(frozen=True, slots=True)
class Slot:
    """A logical replication slot; with the `wal_status` `lost` its reader misses changes."""

    name: str
    active: bool
    wal_status: str
    lag_bytes: int


async def settings(connection: Connection) -> ServerSettings:
    """What the server says of itself."""
    found = await one(connection, ServerSettings, _SETTINGS, {})
    assert found is not None
    return found


async def slots(connection: Connection) -> list[Slot]:
    """The logical slots of this database."""
    return await every(connection, Slot, _SLOTS, {})
