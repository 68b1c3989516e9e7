"""Starting runs, in batches, each at most once for its key.

A batch is one statement, so it is all or nothing even in autocommit, and it joins whatever
transaction the connection is in: the offsets of a Kafka batch, or the transaction of the user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from permaflow.errors import ConflictError
from pipeline.store.database import Connection
from pipeline.store.queries import query

INLINE_BYTES = 32_000
NOT_ACTIVE = "Workflow not found or not active"

_START = query("starts.start")
_KNOWN = query("starts.known")
_AT_DEPTH = query("starts.at_depth")


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A run that somebody wants.

    `run_id` is a new UUIDv7. `key` is what makes it the same as an earlier request (see `run_key`);
    None starts it in any case. `input` is JSON text. `version` pins another than the current one.
    `rerun_of` is the run that this one repeats. With `allow_inactive` a draft or paused workflow
    starts too, an archived one never.
    """

    run_id: UUID
    org: UUID
    workflow_id: UUID
    source: str
    key: bytes | None = None
    input: bytes | None = None
    trigger_node: str = ""
    version: int | None = None
    type: str = ""
    resource_type: str = ""
    resource_id: str = ""
    requested_by: str = ""
    parent_id: UUID | None = None
    allow_inactive: bool = False
    rerun_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The run is stored; wake it once the transaction is committed."""

    run_id: UUID
    version: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An earlier request with the same key started this run."""

    run_id: UUID


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no such workflow in that organisation, or it may not be started."""

    reason: str = NOT_ACTIVE


StartResult = Started | Duplicate | Refused


def run_key(org: UUID, workflow_id: UUID, trigger: str, source: str, event_id: str) -> bytes:
    """The identity of an event for a workflow: 32 bytes, each part with its length before it.

    An `event_id` that a sender chooses may only come here once its signature has been checked.
    """
    digest = hashlib.sha256()
    for part in (
        org.bytes,
        workflow_id.bytes,
        trigger.encode(),
        source.encode(),
        event_id.encode(),
    ):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


async def start_runs(
    connection: Connection, requests: Sequence[StartRequest], *, inline_bytes: int = INLINE_BYTES
) -> list[StartResult]:
    """Starts runs; answers in the order of the requests. Bad JSON in one input fails them all.

    Waits for a concurrent transaction that has inserted the same key. Under REPEATABLE READ such a
    wait ends in a retryable `StoreError`.
    """
    if not requests:
        return []
    cursor = await connection.execute(_START, _columns(requests, inline_bytes), binary=True)
    found = {place: (version, fresh) for place, version, fresh in await cursor.fetchall()}
    results: list[StartResult] = []
    again: list[int] = []
    for place, request in enumerate(requests):
        match found.get(place + 1):
            case None:
                results.append(Refused())
            case (version, True):
                results.append(Started(request.run_id, version))
            case _:
                again.append(place)
                results.append(Refused())
    if again:
        found_runs = await known(connection, [requests[place].key for place in again])
        for place in again:
            run_id = found_runs.get(requests[place].key)
            if run_id is None:  # its transaction was rolled back between the two statements
                raise ConflictError("The start of the same run was given up meanwhile. Try again.")
            results[place] = Duplicate(run_id)
    return results


async def known(connection: Connection, keys: Sequence[bytes | None]) -> dict[bytes | None, UUID]:
    """The runs that keys belong to; a key that started none is left out."""
    cursor = await connection.execute(_KNOWN, {"keys": list(keys)}, binary=True)
    return {bytes(key): run_id for key, run_id in await cursor.fetchall()}


async def at_depth(connection: Connection, ids: Iterable[UUID], depth: int) -> frozenset[UUID]:
    """Which of these runs are the last of so many that started each other by changes they made.

    A run that was started in any other way has the depth 0.
    """
    cursor = await connection.execute(_AT_DEPTH, {"ids": list(ids), "depth": depth})
    return frozenset([run_id for (run_id,) in await cursor.fetchall()])


def _columns(requests: Sequence[StartRequest], inline_bytes: int) -> dict[str, list[object]]:
    large = [
        request.input is not None and len(request.input) > inline_bytes for request in requests
    ]
    pairs = list(zip(requests, large, strict=True))
    return {
        "run_ids": [request.run_id for request in requests],
        "orgs": [request.org for request in requests],
        "workflow_ids": [request.workflow_id for request in requests],
        "versions": [request.version for request in requests],
        "keys": [request.key for request in requests],
        "sources": [request.source for request in requests],
        "trigger_nodes": [request.trigger_node for request in requests],
        "inputs": [
            None if apart or request.input is None else request.input.decode()
            for request, apart in pairs
        ],
        "refs": [uuid7() if apart else None for _, apart in pairs],
        "bodies": [request.input if apart else None for request, apart in pairs],
        "types": [request.type for request in requests],
        "resource_types": [request.resource_type for request in requests],
        "resource_ids": [request.resource_id for request in requests],
        "requesters": [request.requested_by for request in requests],
        "parents": [request.parent_id for request in requests],
        "inactive": [request.allow_inactive for request in requests],
        "reruns": [request.rerun_of for request in requests],
    }
