"""Starting a run that takes over what an earlier one had done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from permaflow.errors import StateError
from pipeline.core.entries import Kept
from pipeline.store import controls, payloads, starts
from pipeline.store.database import Connection
from pipeline.store.payloads import Payload
from pipeline.store.queries import query
from pipeline.store.starts import Started, StartRequest, StartResult

_COPY_PAYLOADS = query("reruns.copy_payloads")
_ASKED_BELOW = query("reruns.asked_below")


async def start(
    connection: Connection,
    request: StartRequest,
    kept: Sequence[Kept],
    copies: Mapping[UUID, UUID],
    large: Sequence[Payload],
    inline_bytes: int,
) -> StartResult:
    """Start a run whose journal begins with what is kept.

    `copies` says under which id the run gets a copy of a value, `large` are values of its own.
    Raises `StateError` if a value is gone.
    """
    (result,) = await starts.start_runs(connection, [request], inline_bytes=inline_bytes)
    if not isinstance(result, Started) or not kept:
        return result
    if copies:
        values = {
            "run_id": request.run_id,
            "org": request.org,
            "ids": list(copies),
            "copies": list(copies.values()),
        }
        cursor = await connection.execute(_COPY_PAYLOADS, values)
        if len(await cursor.fetchall()) != len(copies):
            raise StateError("What some step of the run gave back is no longer kept.")
    if large:
        await payloads.put(connection, large)
    await controls.begin(connection, request.org, request.run_id, kept)
    return result


async def asked_below(
    connection: Connection, org: UUID, run_id: UUID, nodes: Sequence[str]
) -> str | None:
    """One of these steps whose child, or a run below that, has asked people or is gone.

    Looks at the runs of which this one is a rerun, too: what it has taken over was done there.
    """
    values = {"org": org, "id": run_id, "nodes": list(nodes)}
    row = await (await connection.execute(_ASKED_BELOW, values)).fetchone()
    return None if row is None else row[0]
