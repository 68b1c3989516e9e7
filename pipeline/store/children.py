"""Runs that were started by runs, at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every

_ENDED = query("children.ended")
_JOURNALS = query("children.journals")


@dataclass(frozen=True, slots=True)
class EndedChild:
    """A finished run that its parent waits for. `input`, `error` and `mapping` are JSON text.

    `id` is that of the question, too. `on_failure` is `fail` or `continue`.
    """

    id: UUID
    org: UUID
    parent_id: UUID
    workflow_id: UUID
    version: int
    status: str
    trigger_node: str
    input: bytes | None
    input_ref: UUID | None
    error: bytes | None
    mapping: bytes | None
    on_failure: str


@dataclass(frozen=True, slots=True)
class _Row:
    run_id: UUID
    entries: bytes


async def ended(connection: Connection, run_ids: Sequence[UUID]) -> list[EndedChild]:
    """Those of these runs that have ended and that somebody waits for."""
    return await every(connection, EndedChild, _ENDED, {"ids": list(run_ids)})


async def journals(connection: Connection, run_ids: Sequence[UUID]) -> dict[UUID, list[bytes]]:
    """The rows of journals, in order; entries are JSON text."""
    found: dict[UUID, list[bytes]] = {run_id: [] for run_id in run_ids}
    for row in await every(connection, _Row, _JOURNALS, {"ids": list(run_ids)}):
        found[row.run_id].append(row.entries)
    return found
