"""Values that are too large for a row of the journal or a message, by reference.

The id is a UUIDv7 of about now: it decides the month that the value is dropped with. PostgreSQL
compresses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query

_PUT = query("payloads.put")
_GET = query("payloads.get")
_SMALL = query("payloads.small")


@dataclass(frozen=True, slots=True)
class Payload:
    """A value of a run; `run_id` is None while no run is known."""

    id: UUID
    org: UUID
    body: bytes
    run_id: UUID | None = None


async def put(connection: Connection, payloads: Sequence[Payload]) -> None:
    """Stores values; storing one again changes nothing."""
    values = {
        "ids": [payload.id for payload in payloads],
        "orgs": [payload.org for payload in payloads],
        "run_ids": [payload.run_id for payload in payloads],
        "bodies": [payload.body for payload in payloads],
    }
    await connection.execute(_PUT, values)


async def get(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, bytes]:
    """Values by their references; one that is not there is left out."""
    cursor = await connection.execute(_GET, {"ids": list(ids)}, binary=True)
    return dict(await cursor.fetchall())


async def small(
    connection: Connection, ids: Iterable[UUID], *, most: int, together: int
) -> dict[UUID, bytes]:
    """The same, without values of more than `most` bytes, and what goes beyond `together`."""
    values = {"ids": list(ids), "most": most, "together": together}
    cursor = await connection.execute(_SMALL, values, binary=True)
    return dict(await cursor.fetchall())
