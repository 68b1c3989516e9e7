"""Runs that wait for children and for changes, while processes are killed at any moment."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from permaflow.errors import StoreError
from permaflow.plan import Json
from pipeline import builtins
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.ids import new_id
from pipeline.settings import load_settings
from pipeline.starter import announce, cancel
from pipeline.store import orgs, records, runs, starts, workflows
from pipeline.store.database import Database
from specs.dialects import compile_document
from tests.faults import nemesis
from tests.faults.check import effect
from tests.faults.cluster import Cluster
from tests.faults.effects import WITNESS
from tests.fix_engine import graph
from tests.fix_store import execute

pytestmark = [pytest.mark.service, pytest.mark.slow]

VERTICES = ("orchestrator", "orchestrator", "runner", "completion", "clock", "ingest", "ingest")
SETTLE_WITHIN = 60.0
ITEMS = 5
STATUS = {"loop": "completed", "wait": "completed", "cancelled": "cancelled", "late": "failed"}


def calls(child: UUID, **more: Json) -> dict[str, Json]:
    config = {"workflow_id": str(child), "input": {"n": "{{loop.item}}"}}
    return {"id": "child", "type": "meta_subworkflow", "config": config, **more}


def documents(leaf: UUID, sleeper: UUID) -> dict[str, Json]:
    loop = {"items": "{{trigger.items}}", "mode": "parallel"}
    until = {
        "object": "fault_case",
        "record_id": "{{trigger.id}}",
        "field": "status",
        "op": "eq",
        "value": "done",
    }
    slow = {"id": "child", "type": "meta_subworkflow", "config": {"workflow_id": str(sleeper)}}
    return {
        "loop": graph(
            {"id": "each", "type": "logic_loop", "config": loop},
            calls(leaf, parentId="each"),
            effect("sum", value="{{steps.each.output.items}}"),
            edges=["t>each", "each>sum"],
        ),
        "wait": graph(
            {"id": "pause", "type": "logic_delay", "config": {"until_field": until}},
            effect("after", value="{{steps.pause.output.record.id}}"),
            edges=["t>pause", "pause>after"],
        ),
        "cancelled": graph(slow, edges=["t>child"]),
        "late": graph({**slow, "timeout_seconds": 0.5}, edges=["t>child"]),
    }


@dataclass
class Load:
    """Starts parents and waits, and does what they wait for."""

    database: Database
    bus: JetStreamBus
    org: UUID
    ids: dict[str, UUID]
    wanted: dict[UUID, str] = field(default_factory=dict)

    async def store(self, work: Any, *args: Any) -> Any:
        """As a client that tries again while the store is away."""
        async with asyncio.timeout(SETTLE_WITHIN):
            while True:
                try:
                    return await self.database.run(work, *args)
                except StoreError:
                    await asyncio.sleep(0.05)

    async def start(self, kind: str, data: Json) -> UUID:
        run_id = new_id()
        text = orjson.dumps(data)
        wanted = [starts.StartRequest(run_id, self.org, self.ids[kind], "api", input=text)]
        announce(self.bus, wanted, await self.store(starts.start_runs, wanted))
        self.wanted[run_id] = kind
        return run_id

    async def once(self, number: int, chance: random.Random) -> None:
        """One of each kind; the record changes before, while or after the run begins to wait."""
        case = f"c{number}"
        await self.store(records.create, self.org, "fault_case", {"status": "open"}, case)
        await self.start("loop", {"items": list(range(ITEMS))})
        await self.start("late", {})
        doomed = await self.start("cancelled", {})
        waiting = asyncio.create_task(self.start("wait", {"id": case}))
        await asyncio.sleep(chance.uniform(0, 0.3))
        await self.store(records.update, self.org, "fault_case", case, {"status": "done"})
        await waiting
        await self.store(runs.request_cancel, self.org, doomed, "somebody")
        cancel(self.bus, doomed, self.org, "somebody", "")

    async def rows(self, statement: str, *values: object) -> list[Any]:
        return await execute(self.database, statement, values)

    async def open(self) -> list[Any]:
        return await self.rows(
            "select id, workflow_id, status, cancel_at from permaflow.run where finished_at is null"
        )


async def prepare(database: Database, bus: JetStreamBus) -> Load:
    types = builtins.task_types(load_settings(task_types="tests.faults.effects"))
    org = (await database.run(orgs.ensure)).id

    async def save(name: str, document: Json) -> UUID:
        compiled = compile_document(document, types)
        assert not compiled.problems, compiled.problems
        workflow_id = new_id()
        draft = workflows.Draft(name, orjson.dumps(document), "graph", compiled.triggers)
        await database.run(workflows.create, org, workflow_id, draft)
        await database.run(workflows.set_status, org, workflow_id, "active", compiled.triggers)
        return workflow_id

    leaf = await save("leaf", graph(effect("a", value="{{trigger.n}}"), edges=["t>a"]))
    pause = {"id": "pause", "type": "logic_delay", "config": {"duration": 600}}
    sleeper = await save("sleeper", graph(pause, edges=["t>pause"]))
    ids = {name: await save(name, made) for name, made in documents(leaf, sleeper).items()}
    return Load(database, bus, org, {**ids, "leaf": leaf, "sleeper": sleeper})


async def until_read(load: Load) -> None:
    """Changes count from the moment that somebody reads the log."""
    async with asyncio.timeout(30):
        while not await load.rows("select 1 from pg_replication_slots where active"):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


async def settled(load: Load) -> list[Any]:
    """The runs that are still open after all the time that there is."""
    end = asyncio.get_running_loop().time() + SETTLE_WITHIN
    while (left := await load.open()) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return left


async def test_killing_any_process_loses_no_child_and_no_wait(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds = 60.0 if request.config.getoption("--long") else 8.0
    seed = int(os.environ.get("PERMAFLOW_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print(f"PERMAFLOW_TEST_SEED={seed}")
    chance, seen = random.Random(seed), Counter[str]()
    async with AsyncExitStack() as stack:
        cluster = await Cluster(tmp_path, VERTICES).start(stack)
        assert cluster.stack is not None
        assert cluster.stack.database_url
        assert cluster.stack.nats_url
        os.environ[WITNESS] = str(cluster.witness)
        cluster.witness.touch()
        database = await stack.enter_async_context(Database(cluster.stack.database_url))
        bus = await connect(cluster.stack.nats_url, name="faults")
        stack.push_async_callback(bus.close)
        load = await prepare(database, bus)
        await until_read(load)
        end = asyncio.get_running_loop().time() + seconds
        number = 0
        while asyncio.get_running_loop().time() < end or seen.total() < 8:
            await load.once(number, chance)
            number += 1
            await nemesis.kill_a_vertex(cluster, chance, seen)
            await asyncio.sleep(chance.uniform(0.05, 0.4))
        left = await settled(load)
        print(f"{number} rounds, {dict(seen)}")
        assert left == [], said_by(cluster)
        await check(load, number)


async def check(load: Load, rounds: int) -> None:
    ended = await load.rows("select id, status from permaflow.run where parent_id is null")
    wrong = [row for row in ended if row[1] != STATUS[load.wanted[row[0]]]]
    assert wrong == []
    assert len(ended) == 4 * rounds
    children = await load.rows(
        "select workflow_id, status, count(*) from permaflow.run where parent_id is not null"
        " group by 1, 2"
    )
    # A parent may be cancelled before it begins, and then has no child.
    slept = sum(count for workflow, _, count in children if workflow == load.ids["sleeper"])
    assert rounds <= slept <= 2 * rounds
    assert {(w, s, c) for w, s, c in children} == {
        (load.ids["leaf"], "completed", ITEMS * rounds),
        (load.ids["sleeper"], "cancelled", slept),
    }
    async with asyncio.timeout(SETTLE_WITHIN):
        while await left_behind(load):  # noqa: ASYNC110 - the reconciler tells nobody
            await asyncio.sleep(0.2)


async def left_behind(load: Load) -> Sequence[Any]:
    """Questions, answers and waits of runs that have ended."""
    return await load.rows(
        "select 'question' from permaflow.question union all select 'answer' from permaflow.answer"
        " union all select 'wait' from permaflow.change_wait"
    )


def said_by(cluster: Cluster) -> str:
    return "\n".join(
        f"--- {member.name}, {member.deaths} deaths\n{member.log.read_text()[-1500:]}"
        for member in cluster.members
    )
