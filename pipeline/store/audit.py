"""Who did what: written in the transaction of the deed, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from permaflow.plan import Json
from pipeline.store.database import Connection
from pipeline.store.json_values import raw, to_json
from pipeline.store.queries import query
from pipeline.store.rows import every

_INSERT = query("audit.insert")
_LIST = query("audit.list")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`actor` did `action` to `object`. `details` is JSON text."""

    id: UUID
    actor: str
    action: str
    object: str
    details: bytes
    at: datetime


async def add(
    connection: Connection, org: UUID, actor: str, action: str, object_name: str, details: Json
) -> None:
    """Notes a deed; no secret belongs into `details`."""
    values = {
        "id": uuid7(),
        "org": org,
        "actor": actor,
        "action": action,
        "object": object_name,
        "details": raw(to_json(details)),
    }
    await connection.execute(_INSERT, values)


async def find(
    connection: Connection,
    org: UUID,
    *,
    object_name: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[AuditEntry]:
    """Deeds, newest first."""
    values = {"org": org, "object": object_name, "before": before, "limit": limit}
    return await every(connection, AuditEntry, _LIST, values)
