"""Versions of workflows: the documents as they were written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from permaflow.errors import NotFoundError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

_DOCUMENT = query("versions.document")
_VERSIONS = query("versions.list")
_IN_USE = query("versions.in_use")


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a document; `document` is the JSON text as it was written."""

    version: int
    document: bytes
    dialect: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One version without its document."""

    version: int
    dialect: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class InUse:
    """A version that runs go by: `open_runs` of them now. `total` counts all such versions."""

    name: str
    version: int
    document: bytes
    open_runs: int
    total: int


async def document(
    connection: Connection, workflow_id: UUID, version: int | None = None
) -> Document:
    """One version as it was written; the current one by default. Raises `NotFoundError`."""
    found = await one(connection, Document, _DOCUMENT, {"id": workflow_id, "version": version})
    if found is None:
        what = "workflow" if version is None else f"version {version} of workflow"
        raise NotFoundError(f"There is no {what} {workflow_id}.")
    return found


async def find(
    connection: Connection,
    org: UUID,
    workflow_id: UUID,
    *,
    before: int | None = None,
    limit: int = 50,
) -> list[Version]:
    """The versions, newest first."""
    values = {"org": org, "id": workflow_id, "before": before, "limit": limit}
    return await every(connection, Version, _VERSIONS, values)


async def in_use(connection: Connection, limit: int) -> list[InUse]:
    """What open runs and active workflows go by, of every organisation, the most used first."""
    return await every(connection, InUse, _IN_USE, {"limit": limit})
