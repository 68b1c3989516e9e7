"""Plays all cells at once, on real servers and real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg

from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.starter import post
from pipeline.store import orgs
from pipeline.store.database import Database
from pipeline.wire import Wake
from tests.faults.cluster import Cluster
from tests.matrix.cells import WHAT, Cell, Situation, cells
from tests.matrix.outside import Outside, outside

DEFINITIONS = "/workflows/v1/definitions"
RUNS = "/workflows/v1/runs"
APPROVALS = "/workflows/v1/approvals"
WITHIN = 180.0
LOOK_EVERY = 0.1
AHEAD = (4.0, 16.0, 60.0)
"""Seconds until the moment that a run is given. Where something has to begin well before it, and
the machine was too slow for that, the next run is given more."""

VERTICES = ("orchestrator", "orchestrator", "runner", "runner", "completion", "clock", "gateway")


@dataclass(frozen=True)
class Came:
    """What a cell came to: the run, its step `it` (the one in question), and how often each of
    its steps succeeded."""

    status: str
    error: Any
    step: dict[str, Any]
    successes: int


class Play:
    """All cells of one call."""

    def __init__(
        self, cluster: Cluster, http: httpx.AsyncClient, out: Outside, bus: JetStreamBus, org: UUID
    ) -> None:
        self.cluster = cluster
        self.http = http
        self.out = out
        self.bus = bus
        self.org = org
        self.tokens: dict[str, str] = {}
        self.locked = asyncio.Event()
        self.freed = asyncio.Event()
        self.killed = {"runner": asyncio.Event(), "orchestrator": asyncio.Event()}
        self.waiting: dict[str, list[asyncio.Event]] = {"runner": [], "orchestrator": []}

    # --- talking to the gateway -------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    answer = await self.http.request(method, path, json=body)
                except httpx.HTTPError:
                    await asyncio.sleep(LOOK_EVERY)
                    continue
                if answer.status_code < 500:
                    assert answer.is_success, f"{method} {path}: {answer.text}"
                    return answer.json()
                await asyncio.sleep(LOOK_EVERY)

    async def active(self, name: str, document: Any) -> str:
        saved = await self.call("POST", DEFINITIONS, {"name": name, "definition": document})
        path = f"{DEFINITIONS}/{saved['id']}/status"
        await self.call("PATCH", path, {"status": "active"})
        return str(saved["id"])

    async def step(self, run_id: str) -> dict[str, Any] | None:
        found = (await self.call("GET", f"{RUNS}/{run_id}/steps?node=it"))["data"]
        return found[0] if found else None

    async def until_open(self, run_id: str) -> dict[str, Any]:
        """The step in question, once it has begun."""
        async with asyncio.timeout(WITHIN):
            while True:
                step = await self.step(run_id)
                if step is not None:
                    return step
                await asyncio.sleep(LOOK_EVERY)

    async def until_ended(self, run_id: str) -> dict[str, Any]:
        async with asyncio.timeout(WITHIN):
            while True:
                run: dict[str, Any] = await self.call("GET", f"{RUNS}/{run_id}")
                if run["finished_at"] is not None:
                    return run
                await asyncio.sleep(LOOK_EVERY)

    # --- one cell ---------------------------------------------------------------------------------

    def token(self, cell: Cell) -> str | None:
        """The name by which the outside knows the cell, if it reaches it."""
        if cell.type == "meta_subworkflow":
            return f"child-{WHAT[cell.situation]}"
        name = {"logic_loop": "loop"}.get(cell.type, cell.type)
        return f"{name}-{cell.situation.name.lower()}" if cell.reaches else None

    async def play(self, cell: Cell, ready: asyncio.Event) -> Came:
        for ahead in AHEAD:
            came = await self.play_once(cell, ready, ahead)
            # It only fails until its moment: after that, there is nothing to try again.
            if not cell.fails_until or came.step.get("attempts") != 1:
                break
        return came

    async def play_once(self, cell: Cell, ready: asyncio.Event, ahead: float) -> Came:
        try:
            run_id = await self.begin(cell, ahead)
        finally:
            ready.set()  # whoever waits for all of them does not wait for what has gone wrong
        match cell.situation:
            case Situation.CANCEL:
                await self.call("POST", f"{RUNS}/{run_id}/cancel")
            case Situation.KILLED:
                async with asyncio.timeout(WITHIN):
                    await self.killed[cell.vertex].wait()
                if (token := self.token(cell)) is not None:
                    self.out.release(token)
            case Situation.REDELIVERED:
                for nudge in range(1, 4):
                    post(self.bus, [(self.org, Wake(UUID(run_id), int(time.time()) + nudge))])
        if cell.type == "logic_approval":
            await self.decide(cell.situation, run_id)
        return await self.came(cell, run_id)

    async def begin(self, cell: Cell, ahead: float) -> str:
        """Start a run, and wait until it is at the step in question where that matters."""
        workflow = await self.active(f"{cell}, {ahead:g} s", cell.document)
        until = int((time.time() + ahead) * 1000)
        at = datetime.fromtimestamp(until / 1000, UTC).isoformat()
        data = {"until": until, "at": at, "start": "soon"}
        body = {"workflow_id": workflow, "trigger_data": data}
        run_id = (await self.call("POST", RUNS, body))["id"]
        if cell.situation in (Situation.CANCEL, Situation.KILLED, Situation.REDELIVERED):
            token = self.token(cell)
            if token is not None:
                await self.out.until_asked(token, WITHIN)
            else:
                await self.until_open(run_id)
        return str(run_id)

    async def decide(self, situation: Situation, run_id: str) -> None:
        if situation in (Situation.CANCEL, Situation.TIMEOUT):
            return
        step = await self.until_open(run_id)
        decision = "reject" if situation is Situation.FINAL else "approve"
        path = f"{step['approval']['href']}/respond"
        await self.call("POST", path, {"decision": decision, "user": "ana"})

    async def came(self, cell: Cell, run_id: str) -> Came:
        run = await self.until_ended(run_id)
        step = await self.step(run_id)
        asked = "handler" if cell.type == "meta_error" else "it"
        events = (await self.http.get(f"{RUNS}/{run_id}/stream")).text
        successes = sum(
            "event: step_completed" in event and _data(event).get("node") == asked
            for event in events.split("\n\n")
        )
        return Came(run["status"], run["error"], step or {}, successes)

    # --- what happens to all of them --------------------------------------------------------------

    async def kill_when_ready(self, vertex: str) -> None:
        """Kill every process of a vertex once all that wait for it are under way."""
        for ready in self.waiting[vertex]:
            await ready.wait()
        for member in self.cluster.pick(vertex):
            self.cluster.signal(member, signal.SIGKILL)
        self.killed[vertex].set()

    async def hold_record(self) -> None:
        """Lock the record until those that wait for it have had what they wait for."""
        assert self.cluster.stack is not None
        await self.call("POST", "/records/v1/thing", {"id": "locked", "data": {"n": 0}})
        url = self.cluster.stack.database_url
        assert url is not None
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute("select from permaflow.record where id = 'locked' for update")
            self.locked.set()
            await self.killed["runner"].wait()
            await self.freed.wait()

    async def everything(self) -> dict[tuple[str, Situation], Came]:
        for what in sorted(set(WHAT.values())):
            config = {"url": self.out.url(what, f"child-{what}")}
            node = {"id": "it", "type": "action_http", "config": config}
            trigger = {"id": "t", "type": "trigger_manual", "config": {}}
            edge = {"id": "e", "source": "t", "target": "it"}
            document = {"nodes": [trigger, node], "edges": [edge]}
            await self.active(f"child {what}", document)
        wanted = cells(self.out, lambda name: name)
        holding = asyncio.create_task(self.hold_record())
        await self.locked.wait()
        tasks = {}
        for cell in wanted:
            ready = asyncio.Event()
            if cell.situation is Situation.KILLED:
                self.waiting[cell.vertex].append(ready)
            tasks[cell.type, cell.situation] = asyncio.create_task(self.play(cell, ready))
        locked_out = [
            tasks["action_record", situation] for situation in (Situation.TIMEOUT, Situation.CANCEL)
        ]
        asyncio.gather(*locked_out, return_exceptions=True).add_done_callback(
            lambda _: self.freed.set()
        )
        killers = [asyncio.create_task(self.kill_when_ready(vertex)) for vertex in self.waiting]
        came = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for task in (holding, *killers):
            task.cancel()
        await asyncio.gather(holding, *killers, return_exceptions=True)
        return dict(zip(tasks, came, strict=True))  # type: ignore[arg-type]


def _data(event: str) -> dict[str, Any]:
    """The data of a server-sent event."""
    lines = [line[6:] for line in event.splitlines() if line.startswith("data: ")]
    found: dict[str, Any] = json.loads("\n".join(lines)) if lines else {}
    return found


async def play_everything(folder: Path) -> dict[tuple[str, Situation], Came]:
    """Cell → what it came to, or the exception that it ended with."""
    async with AsyncExitStack() as stack:
        out = await stack.enter_async_context(outside())
        settings = {
            "PERMAFLOW_HTTP_ALLOW": f"127.0.0.1:{out.port}",
            "PERMAFLOW_SMTP_URL": f"smtp://127.0.0.1:{out.mail_port}",
            "PERMAFLOW_SMTP_SENDER": "shop@example.com",
            "PERMAFLOW_FUNCTIONS": "tests.matrix.plugins",
            "PERMAFLOW_INTEGRATIONS": "tests.matrix.plugins:provider",
            "PERMAFLOW_DATABASE_POOL": "16",
        }
        cluster = await Cluster(folder, VERTICES, settings=settings).start(stack)
        assert cluster.stack is not None
        assert cluster.stack.database_url
        assert cluster.stack.nats_url
        bus = await connect(cluster.stack.nats_url, name="matrix")
        stack.push_async_callback(bus.close)
        async with Database(cluster.stack.database_url) as database:
            org = await database.run(orgs.ensure)
        http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{cluster.port}",
            headers={"Authorization": f"Bearer {cluster.api_key}"},
            timeout=30.0,
        )
        await stack.enter_async_context(http)
        return await Play(cluster, http, out, bus, org.id).everything()
