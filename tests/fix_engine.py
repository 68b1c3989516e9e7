"""The whole engine in the test's own loop: every vertex but the gateway, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import orjson
import psycopg
import pytest
from pydantic import BaseModel

from permaflow.plan import Json
from permaflow.task import Done, Reject, Retry, TaskType
from permaflow.task_types import TaskTypeRegistry
from pipeline import builtins
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.port import Message
from pipeline.children import Children
from pipeline.clock import Clock
from pipeline.completion import Completion
from pipeline.core.entries import Entry, from_row
from pipeline.ids import new_id
from pipeline.ingest import Ingest
from pipeline.orchestrator import Orchestrator
from pipeline.programs import Programs
from pipeline.runner import Runner
from pipeline.runner_services import open_services, runner_store
from pipeline.settings import Settings, load_settings
from pipeline.sources import open_sources
from pipeline.starter import announce, cancel
from pipeline.store import orgs, runs, starts, stats, versions, workflows
from pipeline.store.database import Database
from pipeline.store.journal import Journal
from specs.dialects import compile_document

WITHIN = 20.0
NOBODY = UUID(int=0)

Found = TypeVar("Found")


class Script(BaseModel):
    """Config of the test's own task type: what to answer, attempt by attempt."""

    answers: list[str] = ["done"]
    output: Any = None
    seconds: float = 0.0


@dataclass
class Engine:
    """The running vertices, and what a test does with them."""

    settings: Settings
    database: Database
    bus: JetStreamBus
    org: UUID
    types: TaskTypeRegistry
    attempts: list[tuple[UUID, str, str, int]] = field(default_factory=list)
    started: dict[str, asyncio.Event] = field(default_factory=dict)
    dead: list[tuple[str, str, bytes]] = field(default_factory=list)
    last: UUID = NOBODY
    completion: Completion = field(init=False)

    async def run_task(self, config: Script, ctx: Any) -> Done | Retry | Reject:
        self.attempts.append((ctx.run_id, ctx.scope, ctx.node, ctx.attempt))
        self.started.setdefault(ctx.node, asyncio.Event()).set()
        if config.seconds:
            await asyncio.sleep(config.seconds)
        answer = config.answers[min(ctx.attempt, len(config.answers)) - 1]
        match answer:
            case "retry":
                return Retry("not now")
            case "reject":
                return Reject("never", code="refused")
            case "raise":
                raise ValueError("a bug in a task")
        return Done(config.output)

    async def workflow(self, document: Json, *, active: bool = True) -> UUID:
        """A stored workflow; it must compile."""
        compiled = compile_document(document, self.types)
        assert not compiled.problems, compiled.problems
        workflow_id = new_id()
        draft = workflows.Draft("test", orjson.dumps(document), "graph", compiled.triggers)
        await self.database.run(workflows.create, self.org, workflow_id, draft)
        if active:
            await self.database.run(
                workflows.set_status, self.org, workflow_id, "active", compiled.triggers
            )
        return workflow_id

    async def start(self, workflow_id: UUID, data: Json = None, *, count: int = 1) -> list[UUID]:
        requests = [
            starts.StartRequest(new_id(), self.org, workflow_id, "api", input=orjson.dumps(data))
            for _ in range(count)
        ]
        results = await self.database.run(starts.start_runs, requests)
        announce(self.bus, requests, results)
        return [request.run_id for request in requests]

    async def cancel(self, run_id: UUID) -> None:
        await self.database.run(runs.request_cancel, self.org, run_id, "somebody")
        cancel(self.bus, run_id, self.org, "somebody", "")

    async def once(self, look: Callable[[], Awaitable[Found]]) -> Found:
        """What `look` finds, once it finds anything. It looks when something happens to a run."""
        rung = asyncio.Event()
        stop = await self.bus.listen("pf.live.*", lambda _subject, _data: rung.set())
        try:
            async with asyncio.timeout(WITHIN):
                while True:
                    rung.clear()
                    if found := await look():
                        return found
                    try:
                        await asyncio.wait_for(rung.wait(), 0.2)
                    except TimeoutError:
                        continue
        finally:
            await stop()

    async def until(self, run_id: UUID, *statuses: str) -> runs.Run:
        """The run, once it has one of these statuses; any final one by default."""
        wanted = set(statuses)

        async def look() -> runs.Run | None:
            run = await self.database.run(runs.get, self.org, run_id)
            is_it = run.status in wanted or (not wanted and run.finished_at is not None)
            return run if is_it else None

        found = await self.once(look)
        assert found is not None
        return found

    async def finished(self, document: Json, data: Json = None) -> tuple[runs.Run, list[Entry]]:
        """A new run of a new workflow, at its end, with its whole journal."""
        (run_id,) = await self.start(await self.workflow(document), data)
        self.last = run_id
        run = await self.until(run_id)
        return run, await self.entries(run_id)

    async def entries(self, run_id: UUID) -> list[Entry]:
        rows = await self.database.run(runs.journal, self.org, run_id, limit=100_000)
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [entry for row in rows for entry in from_row(orjson.loads(row.entries))]


async def start_engine(
    database_url: str, nats_url: str, stack: AsyncExitStack, **flags: object
) -> Engine:
    """Start every vertex in this loop; they stop with `stack`."""
    settings = load_settings(
        database_url=database_url, nats_url=nats_url, reconcile_after=1.0, **flags
    )
    database = await stack.enter_async_context(Database(database_url, size=8))
    bus = await connect(nats_url, name="test")
    stack.push_async_callback(bus.close)
    types = builtins.task_types(settings)
    org = await database.run(orgs.ensure)
    engine = Engine(settings, database, bus, org.id, types)
    types.add(TaskType("test_script", "code", Script, Script, engine.run_task))

    async def document(workflow_id: UUID, version: int) -> Json:
        found = await database.run(versions.document, workflow_id, version)
        return orjson.loads(found.document)

    def dead(source: str, message: Message) -> None:
        engine.dead.append((source, message.subject, message.data))
        message.term()

    journal = Journal(lambda: psycopg.AsyncConnection.connect(database_url, autocommit=True))
    services = await open_services(settings, database, stack, ring=bus.ring)
    programs = Programs(document, types, settings.limits)
    children = Children(bus, database, Programs(document, types, settings.limits), settings)
    engine.completion = Completion(
        bus, lambda ids: database.run(stats.settle, ids), dead, [children.tell]
    )
    vertices = [
        Orchestrator(bus, journal, programs, types.get, settings, dead),
        Runner(bus, types, services, runner_store(database), settings, settings.stage_names, dead),
        engine.completion,
        Clock(bus, database, settings),
        Ingest(bus, database, await open_sources(settings, database), settings),
    ]
    running = [asyncio.create_task(vertex.run()) for vertex in vertices]

    async def stop() -> None:
        for vertex in reversed(vertices):
            await vertex.stop()
        done, late = await asyncio.wait(running, timeout=WITHIN)
        for task in done:
            task.result()
        assert not late, late

    stack.push_async_callback(stop)
    return engine


@pytest.fixture
async def engine(database_url: str, nats_url: str) -> AsyncIterator[Engine]:
    async with AsyncExitStack() as stack:
        yield await start_engine(database_url, nats_url, stack)


def graph(*nodes: dict[str, Any], edges: Sequence[str] = (), **more: Json) -> dict[str, Json]:
    """A graph with a manual trigger `t`; edges are written `a>b` or `a:handle>b`."""
    written = []
    for number, edge in enumerate(edges):
        source, _, target = edge.partition(">")
        name, _, handle = source.partition(":")
        written.append({"id": f"e{number}", "source": name, "target": target})
        if handle:
            written[-1]["sourceHandle"] = handle
    trigger = {"id": "t", "type": "trigger_manual", "config": {}}
    return {"nodes": [trigger, *nodes], "edges": written, **more}


def task(name: str, *answers: str, **more: Json) -> dict[str, Any]:
    """A node of the test's own type that answers so, attempt by attempt."""
    config: dict[str, Json] = {"answers": list(answers) or ["done"], "output": {"from": name}}
    for key in ("output", "seconds"):
        if key in more:
            config[key] = more.pop(key)
    return {"id": name, "type": "test_script", "config": config, **more}
