"""A store with an organisation and an active workflow in it.

store       the engine's view: every organisation
gateway     the gateway's role: one organisation at a time, through `run_as`
org         the default organisation; `other_org` is somebody else's
workflow    an active workflow of `org` with a webhook and a record trigger
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from permaflow.plan import Condition, TriggerSpec
from pipeline.store import orgs, starts, workflows
from pipeline.store.database import ENGINE_ROLE, GATEWAY_ROLE, Connection, Database
from pipeline.store.starts import Started, StartRequest

TRIGGERS = (
    TriggerSpec("hook", "webhook", settings={"verification": "hmac"}),
    TriggerSpec(
        "row",
        "record",
        object="orders",
        events=frozenset({"created", "updated"}),
        conditions=(Condition(("amount",), "gt", 100),),
    ),
)
DRAFT = workflows.Draft(
    name="Orders", document=b'{"version": 1,  "nodes": []}', dialect="graph", triggers=TRIGGERS
)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, size=8, role=ENGINE_ROLE) as database:
        yield database


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, size=4, role=GATEWAY_ROLE) as database:
        yield database


@pytest.fixture
async def org(store: Database) -> UUID:
    return (await store.run(orgs.ensure)).id


@pytest.fixture
async def other_org(store: Database) -> UUID:
    return (await store.run(orgs.ensure, "other", "Somebody else")).id


@pytest.fixture
async def workflow(store: Database, org: UUID) -> UUID:
    return await active_workflow(store, org)


async def active_workflow(store: Database, org: UUID) -> UUID:
    workflow_id = uuid7()
    await store.run(workflows.create, org, workflow_id, DRAFT)
    await store.run(workflows.set_status, org, workflow_id, "active", TRIGGERS)
    return workflow_id


async def start(store: Database, org: UUID, workflow_id: UUID, **wanted: Any) -> UUID:
    """Starts one run; answers its id."""
    request = StartRequest(uuid7(), org, workflow_id, "api", **wanted)
    [result] = await store.run(starts.start_runs, [request])
    assert isinstance(result, Started)
    return result.run_id


async def execute(
    store: Database, statement: str, values: Sequence[object] | Mapping[str, object] = ()
) -> list[Any]:
    """Runs a statement of a test; answers its rows."""

    async def work(connection: Connection) -> list[Any]:
        cursor = await connection.execute(statement.encode(), values)
        return await cursor.fetchall() if cursor.description else []

    return await store.run(work)


async def append(store: Database, org: UUID, run_id: UUID, seq: int, entries: str = "[]") -> None:
    """A journal row."""
    await execute(
        store,
        "insert into permaflow.journal (run_id, seq, org_id, entries) values (%s, %s, %s, %s)",
        (run_id, seq, org, entries),
    )


async def finish(store: Database, run_id: UUID, status: str = "completed") -> None:
    await execute(
        store,
        "update permaflow.run set status = %s, finished_at = clock_timestamp() where id = %s",
        (status, run_id),
    )
