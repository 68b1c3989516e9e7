"""Runs that people hold, let go on, or open again after their end.

Each is a row of the run's journal, written here as an orchestrator would. If one is faster the
primary key refuses this row, as it refuses theirs if this is: nothing is decided about a state that
is old. Raises `ConflictError` then; the same again finds the run as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from permaflow.errors import ConflictError, StateError
from pipeline.core.entries import Entry, Migrated, Paused, Reopened, Resumed, to_row
from pipeline.store import runs
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.runs import Run

RETRYABLE = ("failed", "timed_out", "cancelled")
PAUSABLE = ("pending", "running", "waiting")

_APPEND = query("controls.append")
_REOPEN = query("controls.reopen")
_WAS_UNDONE = query("controls.was_undone")
_PAUSE = query("controls.pause")
_RESUME = query("controls.resume")
_MIGRATE = query("controls.migrate")
_RELEASE_TIMERS = query("controls.release_timers")
_HOLD_TIMERS = query("journal.hold_timers")
_HOLD_APPROVALS = query("approvals.hold")
_RELEASE_APPROVALS = query("approvals.release")


async def retry(connection: Connection, org: UUID, run_id: UUID, by: str) -> int:
    """Open a run again that did not complete; answers its last row.

    Raises `NotFoundError`, and `StateError` for a run that did not fail or was undone.
    """
    run = await runs.get(connection, org, run_id)
    if run.status not in RETRYABLE:
        raise StateError(
            f"The run is {run.status}; only one that failed, timed out or was cancelled can be "
            "retried."
        )
    if await was_undone(connection, org, run_id):
        raise StateError(
            "What the run had done was undone after it failed, so there is nothing to go on from. "
            "Run it again from the beginning instead."
        )
    seq = await _append(connection, run, [Reopened(by)], RETRYABLE)
    await connection.execute(_REOPEN, {"id": run_id, "org": org})
    return seq


async def pause(connection: Connection, org: UUID, run_id: UUID, by: str) -> int | None:
    """Hold a run; answers its last row, or None if it is held already.

    Raises `NotFoundError`, and `StateError` for a run that has ended.
    """
    run = await runs.get(connection, org, run_id)
    if run.status not in PAUSABLE:
        raise StateError(f"The run is {run.status}; it cannot be paused.")
    if run.paused_at is not None:
        return None
    seq = await _append(connection, run, [Paused(by)], PAUSABLE)
    await connection.execute(_PAUSE, {"id": run_id, "org": org, "by": by})
    await connection.execute(_HOLD_TIMERS, ([run_id],))
    await connection.execute(_HOLD_APPROVALS, {"id": run_id, "org": org})
    return seq


async def resume(connection: Connection, org: UUID, run_id: UUID, by: str) -> int | None:
    """Let a run go on that is held; answers its last row, or None if it is not held.

    Raises `NotFoundError`, and `StateError` for a run that has ended.
    """
    run = await runs.get(connection, org, run_id)
    if run.status not in PAUSABLE:
        raise StateError(f"The run is {run.status}; it cannot be resumed.")
    if run.paused_at is None:
        return None
    seq = await _append(connection, run, [Resumed(by)], PAUSABLE)
    await connection.execute(_RESUME, {"id": run_id, "org": org})
    await connection.execute(_RELEASE_TIMERS, {"id": run_id, "org": org})
    await connection.execute(_RELEASE_APPROVALS, {"id": run_id, "org": org})
    return seq


async def migrate(
    connection: Connection, org: UUID, run_id: UUID, went_over: Migrated, after: int
) -> int:
    """Let a run go on by another version, if it still has `after` rows; answers its last row.

    Raises `NotFoundError`, and `ConflictError` if it went on or ended.
    """
    run = await runs.get(connection, org, run_id)
    seq = await _append(connection, run, [went_over], PAUSABLE, after)
    await connection.execute(_MIGRATE, {"id": run_id, "org": org, "version": went_over.version})
    return seq


async def begin(connection: Connection, org: UUID, run_id: UUID, kept: Sequence[Entry]) -> None:
    """Write the first row of a run that was started in this transaction."""
    run = await runs.get(connection, org, run_id)
    await _append(connection, run, kept, PAUSABLE)


async def was_undone(connection: Connection, org: UUID, run_id: UUID) -> bool:
    """Whether anything that a run had done was undone after it failed."""
    cursor = await connection.execute(_WAS_UNDONE, {"id": run_id, "org": org})
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def _append(
    connection: Connection,
    run: Run,
    entries: Sequence[Entry],
    statuses: Sequence[str],
    after: int | None = None,
) -> int:
    """Add a row, behind row number `after` if that is given."""
    values = {
        "id": run.id,
        "org": run.org_id,
        "entries": msgspec.json.encode(to_row(entries)).decode(),
        "statuses": list(statuses),
        "after": after,
    }
    row = await (await connection.execute(_APPEND, values)).fetchone()
    if row is None:
        raise ConflictError("The run went on meanwhile.")
    return int(row[0])
