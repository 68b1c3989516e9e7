"""Timers that are due; `journal.py` arms and disarms them. Only the database's clock counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every

_CLAIM = query("timers.claim")
_WAIT = query("timers.wait")


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer of a run that is due."""

    run_id: UUID
    key: str
    org: UUID


async def claim(
    connection: Connection,
    *,
    limit: int = 1000,
    again_after: timedelta = timedelta(seconds=5),
) -> list[DueTimer]:
    """Timers that are due, each to one caller at a time; they come again until disarmed."""
    values = {"limit": limit, "again_after": again_after.total_seconds()}
    return await every(connection, DueTimer, _CLAIM, values)


async def wait(connection: Connection) -> timedelta | None:
    """How long until the next timer is due, not below zero; None if none is armed."""
    row = await (await connection.execute(_WAIT)).fetchone()
    if row is None or row[0] is None:
        return None
    return timedelta(seconds=max(0.0, row[0]))
