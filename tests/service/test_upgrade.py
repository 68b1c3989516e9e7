"""Runs that waited while the engine was replaced by a newer one go on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import orjson
import psycopg
import pytest

from pipeline.core.entries import Succeeded
from pipeline.ids import new_id
from pipeline.store import orgs, records, workflows
from pipeline.store.database import Database
from pipeline.store.migrate import migrate
from tests.fix_engine import graph, start_engine, task

pytestmark = pytest.mark.service

OLDEST = "0001_pre_initial"
DOCUMENT = graph(
    task("before", output={"n": 7}),
    {"id": "pause", "type": "logic_delay", "config": {"duration": 0.1}},
    task("after", output="{{steps.before.output.n}}"),
    edges=["t>before", "before>pause", "pause>after"],
)
JOURNAL: list[list[list[Any]]] = [
    [["started", "t"], ["succeeded", "", "t", 0], ["dispatched", "", "before", 1]],
    [["succeeded", "", "before", 1, {"n": 7}], ["waiting", "", "pause", 0.1]],
]
"""What an engine of the first schema wrote about a run, up to its delay."""


@pytest.fixture
async def empty_url(database_url: str) -> str:
    """A database without any table of ours."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("drop schema permaflow cascade")
    return database_url


async def test_a_run_that_waits_outlives_an_upgrade(empty_url: str, nats_url: str) -> None:
    await migrate(empty_url, until=OLDEST)
    run_id, workflow_id = new_id(), new_id()
    async with Database(empty_url, size=2) as database:
        org = (await database.run(orgs.ensure)).id
        draft = workflows.Draft("old", orjson.dumps(DOCUMENT), "graph", ())
        await database.run(workflows.create, org, workflow_id, draft)
        await database.run(workflows.set_status, org, workflow_id, "active", ())
        async with database.transaction() as connection:
            await connection.execute(
                "insert into permaflow.run (id, org_id, workflow_id, version, status, source,"
                " trigger_node, input) values (%s, %s, %s, 1, 'waiting', 'api', 't', '{}')",
                (run_id, org, workflow_id),
            )
            for seq, entries in enumerate(JOURNAL, start=1):
                await connection.execute(
                    "insert into permaflow.journal (run_id, seq, org_id, entries)"
                    " values (%s, %s, %s, %s)",
                    (run_id, seq, org, orjson.dumps(entries).decode()),
                )
            await connection.execute(
                "insert into permaflow.timer (run_id, key, org_id, due_at)"
                " values (%s, %s, %s, now())",
                (run_id, "delay\x1f\x1fpause\x1f1", org),
            )
        await migrate(empty_url)
    async with AsyncExitStack() as stack:
        engine = await start_engine(empty_url, nats_url, stack)
        assert (await engine.until(run_id)).status == "completed"
        found = await engine.entries(run_id)
        assert [e.output for e in found if isinstance(e, Succeeded) and e.node == "after"] == [7]


async def test_runs_that_ask_outlive_a_restart_of_everything(
    database_url: str, nats_url: str
) -> None:
    slow = graph(
        {"id": "pause", "type": "logic_delay", "config": {"duration": 1}},
        task("end", output="done"),
        edges=["t>pause", "pause>end"],
    )
    condition = {"object": "orders", "record_id": "a", "field": "n", "op": "eq", "value": 1}
    waits = {"id": "wait", "type": "logic_delay", "config": {"until_field": condition}}
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack)
        child = {"workflow_id": str(await engine.workflow(slow))}
        calls = graph(
            {"id": "child", "type": "meta_subworkflow", "config": child}, edges=["t>child"]
        )
        (parent,) = await engine.start(await engine.workflow(calls))
        (waiting,) = await engine.start(await engine.workflow(graph(waits, edges=["t>wait"])))
        await engine.until(parent, "waiting")
        await engine.until(waiting, "waiting")
        org = engine.org
    async with Database(database_url, size=2) as database:
        await database.run(records.create, org, "orders", {"n": 1}, "a")
        async with database.transaction() as connection:
            # The change came while nobody read the log, and the wait was looked at long before.
            await connection.execute("update permaflow.change_wait set looked = false")
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack)
        assert (await engine.until(parent)).status == "completed"
        assert (await engine.until(waiting)).status == "completed"
