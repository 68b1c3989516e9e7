"""Counts of runs, by rollup: a finished run is counted exactly once, when it is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every

_OF = query("stats.of")
_UNSETTLED = query("stats.unsettled")
_SETTLE = query("stats.settle")
_ENDED = query("stats.ended")
_TYPICAL = query("stats.typical")
_BY_STATUS = query("stats.by_status")


@dataclass(frozen=True, slots=True)
class WorkflowStats:
    """`run_count` = `success_count` + `failure_count` + `open_count`, at any moment.

    Whatever ended other than completed counts as a failure.
    """

    workflow_id: UUID
    run_count: int
    success_count: int
    failure_count: int
    open_count: int
    last_run_at: datetime | None


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many runs of a type have a status, and how long they took in seconds, if they ended."""

    type: str
    status: str
    count: int
    mean_seconds: float | None
    p95_seconds: float | None


async def of(
    connection: Connection, org: UUID, workflow_ids: Sequence[UUID]
) -> dict[UUID, WorkflowStats]:
    """What the runs of these workflows came to."""
    rows = await every(connection, WorkflowStats, _OF, {"org": org, "ids": list(workflow_ids)})
    return {row.workflow_id: row for row in rows}


async def typical_seconds(connection: Connection, org: UUID, workflow_id: UUID) -> float | None:
    """How long a run of this workflow takes as a rule; None if none has been completed lately."""
    cursor = await connection.execute(_TYPICAL, {"org": org, "id": workflow_id})
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def unsettled(connection: Connection, limit: int = 1000) -> list[UUID]:
    """Finished runs that are not settled yet, oldest first."""
    cursor = await connection.execute(_UNSETTLED, {"limit": limit})
    return [row[0] for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A finished run that is not settled, and was retried so often. `error` is JSON text."""

    id: UUID
    org: UUID
    workflow_id: UUID
    version: int
    status: str
    source: str
    created_at: datetime
    finished_at: datetime
    reopened: int
    error: bytes | None


async def ended(connection: Connection, run_ids: Sequence[UUID]) -> list[EndedRun]:
    """Those of these runs that are finished and not settled yet."""
    return await every(connection, EndedRun, _ENDED, {"ids": list(run_ids)})


async def settle(connection: Connection, run_ids: Sequence[UUID]) -> list[UUID]:
    """Counts these runs into their workflows; answers those that were not counted before.

    One statement: whatever else belongs to the end of a run goes into the same transaction, for
    the runs in the answer only.
    """
    cursor = await connection.execute(_SETTLE, {"ids": sorted(run_ids)})
    return [row[0] for row in await cursor.fetchall()]


async def by_status(
    connection: Connection,
    org: UUID,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[StatusCount]:
    """Counts and durations by type and status, of runs started in a span of time."""
    values = {"org": org, "since": since, "until": until}
    return await every(connection, StatusCount, _BY_STATUS, values)
