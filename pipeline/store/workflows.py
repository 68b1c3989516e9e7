"""Workflows: their documents, versions and statuses.

Every function belongs in a transaction of the caller's (`Database.run` or `run_as`). Each version
is immutable; the workflow points to the current one, and a run pins the one it was started with.
Only an active workflow has triggers, those of its current version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from permaflow.errors import NotFoundError, StateError
from permaflow.plan import TriggerSpec
from pipeline.store import triggers as trigger_rows
from pipeline.store.database import Connection
from pipeline.store.json_values import raw
from pipeline.store.queries import query
from pipeline.store.rows import every, one

DRAFT, ACTIVE, PAUSED, ARCHIVED = "draft", "active", "paused", "archived"

TRANSITIONS: dict[str, tuple[str, ...]] = {
    DRAFT: (ACTIVE, ARCHIVED),
    ACTIVE: (PAUSED,),
    PAUSED: (ACTIVE, ARCHIVED),
    ARCHIVED: (),
}
"""Status → the statuses that may follow it."""

_INSERT = query("workflows.insert")
_INSERT_VERSION = query("workflows.insert_version")
_LOCK = query("workflows.lock")
_GET = query("workflows.get")
_LIST = query("workflows.list")
_SET_VERSION = query("workflows.set_version")
_SET_STATUS = query("workflows.set_status")
_DELETE = query("workflows.delete")


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow without its document. `version` is the current one."""

    id: UUID
    org_id: UUID
    name: str
    description: str
    trigger_type: str
    status: str
    version: int
    created_at: datetime
    updated_at: datetime
    activated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a user saves. `document` is JSON text as it came; `triggers` is what it compiled to."""

    name: str
    document: bytes
    dialect: str
    triggers: Sequence[TriggerSpec] = ()
    description: str = ""
    trigger_type: str = ""
    by: str = ""


async def create(connection: Connection, org: UUID, workflow_id: UUID, draft: Draft) -> Workflow:
    """A new workflow, a draft at version 1. `workflow_id` is a new UUIDv7."""
    workflow = await one(connection, Workflow, _INSERT, _values(org, workflow_id, 1, draft))
    assert workflow is not None
    await connection.execute(_INSERT_VERSION, _values(org, workflow_id, 1, draft))
    return workflow


async def update(
    connection: Connection,
    org: UUID,
    workflow_id: UUID,
    draft: Draft,
    *,
    expected: int | None = None,
) -> Workflow:
    """Saves the next version; an active workflow's triggers switch to it in the same moment.

    Raises `NotFoundError`, and `StateError` if it is archived or its version is not `expected`.
    """
    found = await lock(connection, org, workflow_id)
    if found.status == ARCHIVED:
        raise StateError("An archived workflow cannot be changed. Create a new one from it.")
    if expected is not None and found.version != expected:
        raise StateError(
            f"The workflow is at version {found.version}, not {expected}: somebody changed it. "
            "Load it and apply the change again."
        )
    version = found.version + 1
    values = _values(org, workflow_id, version, draft)
    await connection.execute(_INSERT_VERSION, values)
    workflow = await one(connection, Workflow, _SET_VERSION, values)
    assert workflow is not None
    if workflow.status == ACTIVE:
        await trigger_rows.switch(connection, org, workflow_id, version, draft.triggers)
    return workflow


async def set_status(
    connection: Connection,
    org: UUID,
    workflow_id: UUID,
    status: str,
    triggers: Sequence[TriggerSpec] = (),
    *,
    expected: int | None = None,
) -> Workflow:
    """Changes the status. `triggers` are those of the current version, for an activation.

    With `expected`, refuses if another version became current since `triggers` were compiled.
    Raises `NotFoundError`, and `StateError` that names what is possible.
    """
    found = await lock(connection, org, workflow_id)
    allowed = TRANSITIONS[found.status]
    if status not in allowed:
        possible = " or ".join(allowed) or "nothing else"
        raise StateError(
            f"The workflow is {found.status} and cannot become {status}; "
            f"from here it can become {possible}."
        )
    if expected is not None and found.version != expected:
        raise StateError(f"The workflow is at version {found.version}, not {expected}. Try again.")
    workflow = await one(connection, Workflow, _SET_STATUS, {"id": workflow_id, "status": status})
    assert workflow is not None
    if ACTIVE in (found.status, status):
        chosen = triggers if status == ACTIVE else ()
        await trigger_rows.switch(connection, org, workflow_id, workflow.version, chosen)
    return workflow


async def delete(connection: Connection, org: UUID, workflow_id: UUID) -> None:
    """Hides the workflow and takes its triggers away; runs go on. Raises `NotFoundError`."""
    found = await lock(connection, org, workflow_id)
    await connection.execute(_DELETE, {"id": workflow_id})
    if found.status == ACTIVE:
        await trigger_rows.switch(connection, org, workflow_id, found.version, ())


async def get(connection: Connection, org: UUID, workflow_id: UUID) -> Workflow:
    """One workflow. Raises `NotFoundError`."""
    values = {"org": org, "id": workflow_id}
    return _found(await one(connection, Workflow, _GET, values), workflow_id)


async def find(
    connection: Connection,
    org: UUID,
    *,
    status: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Workflow]:
    """Workflows, newest first. For the next page `before` is the last id of this one."""
    values = {"org": org, "status": status, "before": before, "limit": limit}
    return await every(connection, Workflow, _LIST, values)


async def lock(connection: Connection, org: UUID, workflow_id: UUID) -> Workflow:
    """One workflow, held until the end of the transaction. Raises `NotFoundError`."""
    values = {"org": org, "id": workflow_id}
    return _found(await one(connection, Workflow, _LOCK, values), workflow_id)


def _found(workflow: Workflow | None, workflow_id: UUID) -> Workflow:
    if workflow is None:
        raise NotFoundError(f"There is no workflow {workflow_id}.")
    return workflow


def _values(org: UUID, workflow_id: UUID, version: int, draft: Draft) -> dict[str, object]:
    return {
        "id": workflow_id,
        "org": org,
        "version": version,
        "name": draft.name,
        "description": draft.description,
        "trigger_type": draft.trigger_type,
        "document": raw(draft.document),
        "dialect": draft.dialect,
        "by": draft.by,
    }
