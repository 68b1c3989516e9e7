"""Partitions ahead of time, and the end of what is old. Any number of clocks may do it at once."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from pipeline.store.database import Connection, Database
from pipeline.store.queries import query

MONTHS_AHEAD = 3
BATCH = 5_000

_MAKE_PARTITIONS = query("retention.make_partitions")
_DROP_OLDEST_MONTH = query("retention.drop_oldest_month")
_CUTOFF = query("retention.cutoff")
_PRUNE_KEYS = query("retention.prune_keys")
_PRUNE_APPROVALS = query("approvals.prune")
_PRUNE_CLAIMS = query("retention.prune_claims")
_PRUNE_FAMILIES = query("retention.prune_families")
_PRUNE_DEAD_LETTERS = query("dead_letters.prune")
_PRUNE_NOTIFICATIONS = query("notifications.prune")
_PRUNE_DOCUMENTS = query("documents.prune")


async def make_partitions(database: Database, months: int = MONTHS_AHEAD) -> int:
    """Partitions for this and the coming months; answers how many were missing."""
    return int(await database.run(_value, _MAKE_PARTITIONS, {"months": months}))


async def drop_old_months(database: Database, days: int) -> list[str]:
    """Drops months that ended more than `days` ago and whose runs are all finished and counted.

    The oldest first, each in a transaction of its own; stops at a month that has an open run.
    Answers the names of the months.
    """
    cutoff = await _cutoff(database, days)
    dropped: list[str] = []
    while True:
        month = await database.run(_value, _DROP_OLDEST_MONTH, {"cutoff": cutoff})
        if month is None:
            return dropped
        dropped.append(month)


async def prune_keys(database: Database, days: int, batch: int = BATCH) -> int:
    """Forgets the identity of events older than `days`; answers how many."""
    return await _prune(database, _PRUNE_KEYS, days, batch)


async def prune_claims(database: Database, days: int, batch: int = BATCH) -> int:
    """Forgets who claimed attempts more than `days` ago; answers how many."""
    return await _prune(database, _PRUNE_CLAIMS, days, batch)


async def prune_families(database: Database, days: int, batch: int = BATCH) -> int:
    """Forgets the sizes of families that began more than `days` ago; answers how many."""
    return await _prune(database, _PRUNE_FAMILIES, days, batch)


async def prune_dead_letters(database: Database, days: int, batch: int = BATCH) -> int:
    """Removes messages that nobody has dealt with for `days`; answers how many."""
    return await _prune(database, _PRUNE_DEAD_LETTERS, days, batch)


async def prune_approvals(database: Database, days: int, batch: int = BATCH) -> int:
    """Removes approvals that were closed more than `days` ago; answers how many."""
    return await _prune(database, _PRUNE_APPROVALS, days, batch)


async def prune_left_by_actions(database: Database, days: int, batch: int = BATCH) -> int:
    """Removes notifications and documents older than `days`; answers how many."""
    notified = await _prune(database, _PRUNE_NOTIFICATIONS, days, batch)
    return notified + await _prune(database, _PRUNE_DOCUMENTS, days, min(batch, 100))


async def _prune(database: Database, text: LiteralString, days: int, batch: int) -> int:
    """In batches, so that no transaction is long."""
    cutoff = await _cutoff(database, days)
    total = 0
    while True:
        count = await database.run(_delete, text, {"cutoff": cutoff, "limit": batch})
        total += count
        if count < batch:
            return total


async def _cutoff(database: Database, days: int) -> datetime:
    moment = await database.run(_value, _CUTOFF, {"days": days})
    assert isinstance(moment, datetime)
    return moment


async def _value(connection: Connection, text: LiteralString, values: dict[str, Any]) -> Any:
    row = await (await connection.execute(text, values)).fetchone()
    return row[0] if row else None


async def _delete(connection: Connection, text: LiteralString, values: dict[str, Any]) -> int:
    return (await connection.execute(text, values)).rowcount
