"""Runs as people and the reconciler see them; orchestrators have `journal.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

from permaflow.errors import NotFoundError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

OPEN = frozenset({"pending", "running", "waiting", "compensating"})
"""The statuses of a run that has not ended."""

_START_OF_IDS = UUID(int=0)

_GET = query("runs.get")
_LIST = query("runs.list")
_JOURNAL = query("runs.journal")
_CANCEL = query("runs.cancel")
_CANCELLED = query("runs.cancelled")
_SILENT = query("runs.silent")
_GLANCE = query("runs.glance")


@dataclass(frozen=True, slots=True)
class Run:
    """A run without its journal. `input` and `error` are JSON text.

    `input_ref` names an input that is kept apart (`payloads.py`). `find` leaves `input` out.
    `reopened` counts how often it went on after its end.
    """

    id: UUID
    org_id: UUID
    workflow_id: UUID
    version: int
    status: str
    source: str
    trigger_node: str
    input: bytes | None
    input_ref: UUID | None
    type: str
    resource_type: str
    resource_id: str
    requested_by: str
    parent_id: UUID | None
    created_at: datetime
    finished_at: datetime | None
    cancel_at: datetime | None
    cancel_by: str | None
    error: bytes | None
    reopened: int
    rerun_of: UUID | None
    paused_at: datetime | None
    paused_by: str | None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None is any. `since` is included, `until` is not.

    With `by_event` only those that an event has started: no children, and no reruns.
    """

    workflow_id: UUID | None = None
    statuses: Sequence[str] | None = None
    type: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    requested_by: str | None = None
    parent_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    by_event: bool = False


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One advance of a run. `entries` is JSON text."""

    seq: int
    at: datetime
    entries: bytes


@dataclass(frozen=True, slots=True)
class CancelledRun:
    """An open run that somebody wants to end, reopened so often."""

    id: UUID
    by: str
    org: UUID
    reopened: int


@dataclass(frozen=True, slots=True)
class SilentRun:
    """A running run that nothing happens to: its last row's number, silent for `seconds`.

    `leased`: a runner works on a step of it, which may be all there is to wait for.
    """

    id: UUID
    seq: int
    org: UUID
    seconds: float
    leased: bool


@dataclass(frozen=True, slots=True)
class Glance:
    """Whether the reconciler has anything to look at."""

    running: bool
    cancelled: bool
    unsettled: bool
    leased: bool
    answered: bool


ANY = RunFilter()


async def get(connection: Connection, org: UUID, run_id: UUID) -> Run:
    """One run. Raises `NotFoundError`."""
    run = await one(connection, Run, _GET, {"org": org, "id": run_id})
    if run is None:
        raise NotFoundError(f"There is no run {run_id}.")
    return run


async def find(
    connection: Connection,
    org: UUID,
    wanted: RunFilter = ANY,
    *,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Run]:
    """Runs, newest first. For the next page `before` is the last id of this one."""
    values = asdict(wanted) | {"org": org, "before": before, "limit": limit}
    if wanted.statuses is not None:
        values["statuses"] = list(wanted.statuses)
    # Planned anew each time: a plan for every combination of filters would fit none of them.
    return await every(connection, Run, _LIST, values, prepare=False)


async def journal(
    connection: Connection, org: UUID, run_id: UUID, *, after: int = 0, limit: int = 1000
) -> list[JournalRow]:
    """What happened to a run after row number `after`, in order and without gaps."""
    values = {"org": org, "id": run_id, "after": after, "limit": limit}
    return await every(connection, JournalRow, _JOURNAL, values)


async def request_cancel(connection: Connection, org: UUID, run_id: UUID, by: str) -> bool:
    """Remembers that somebody wants the run to end; False if it has ended, or does already.

    The first one is kept.

    The run ends once its orchestrator hears of it: send a `Cancel` after the commit; the
    reconciler sends it again for as long as the run is open. Raises `NotFoundError`.
    """
    cursor = await connection.execute(_CANCEL, {"org": org, "id": run_id, "by": by})
    if await cursor.fetchone() is not None:
        return True
    await get(connection, org, run_id)
    return False


async def cancelled(
    connection: Connection, after: timedelta, *, limit: int = 1000
) -> list[CancelledRun]:
    """Open runs whose end was asked for longer than `after` ago."""
    values = {"after": after.total_seconds(), "limit": limit}
    return await every(connection, CancelledRun, _CANCELLED, values)


async def silent(
    connection: Connection,
    after: timedelta,
    *,
    above: UUID = _START_OF_IDS,
    limit: int = 1000,
) -> list[SilentRun]:
    """Running runs without a new row for `after`, by id above `above`."""
    values = {"after": after.total_seconds(), "above": above, "limit": limit}
    return await every(connection, SilentRun, _SILENT, values)


async def glance(connection: Connection) -> Glance:
    """One cheap look; an idle system needs no more."""
    seen = await one(connection, Glance, _GLANCE, {})
    assert seen is not None
    return seen
