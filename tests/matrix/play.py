"""Plays all cells at once, on real servers and real processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from tests.faults.cluster import Cluster
from tests.matrix.acting import WRITING, text
from tests.matrix.cells import ORCHESTRATOR, RUNNER, Cell, Situation, token
from tests.matrix.deciding import CHILD, THING, cells
from tests.matrix.outside import Outside, outside
from tests.matrix.tables import Tables, set_up, tables
from tests.matrix.wire import Wire, wire

DEFINITIONS = "/workflows/v1/definitions"
RUNS = "/workflows/v1/runs"
WITHIN = 180.0
LOOK_EVERY = 0.1
AHEAD = (4.0, 16.0, 60.0)
"""Seconds until the moment until which a snippet fails. Where the machine was too slow to begin
before it, there is nothing to try again; then there is more time."""

VERTICES = (
    *(ORCHESTRATOR, ORCHESTRATOR, RUNNER, RUNNER),
    *("completion", "clock", "ingest", "gateway"),
)


@dataclass(frozen=True)
class Came:
    """What a cell came to. `step` is the one in question, `successes` how often each node ended
    well. `asked` and `keys` are what the outside heard of it; `deliveries` and `results` what went
    to the runners and came back; `rows` how many it wrote, if it writes. `repeated` counts what the
    orchestrator was told twice. `in_time`: the kill came while it was at work, or before it began.
    """

    status: str
    error: Any
    step: dict[str, Any]
    successes: Counter[str]
    asked: int
    keys: frozenset[str]
    deliveries: int
    results: tuple[Any, ...]
    rows: int | None
    repeated: int = 0
    in_time: bool = True


@dataclass(frozen=True)
class Play:
    """All cells of one call. `ready` says of those that wait for the kill that they are, and which
    run is theirs; `killed` whether it came in time.
    """

    cluster: Cluster
    http: httpx.AsyncClient
    out: Outside
    tables: Tables
    wire: Wire
    ready: dict[str, asyncio.Future[UUID]]
    killed: dict[str, asyncio.Future[bool]]

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

    async def step(self, run_id: UUID) -> dict[str, Any] | None:
        found = (await self.call("GET", f"{RUNS}/{run_id}/steps?node=it"))["data"]
        return found[0] if found else None

    async def until_open(self, run_id: UUID) -> dict[str, Any]:
        """The step in question, once it has begun."""
        async with asyncio.timeout(WITHIN):
            while True:
                step = await self.step(run_id)
                if step is not None:
                    return step
                await asyncio.sleep(LOOK_EVERY)

    async def until_ended(self, run_id: UUID) -> dict[str, Any]:
        await self.wire.until(lambda: run_id in self.wire.ends, WITHIN)
        run: dict[str, Any] = await self.call("GET", f"{RUNS}/{run_id}")
        return run

    # --- one cell ---------------------------------------------------------------------------------

    async def play(self, cell: Cell) -> Came:
        for ahead in AHEAD:
            if cell.situation is Situation.RETRYABLE:
                self.out.ahead[f"gate-{cell.token}"] = ahead
            came = await self.play_once(cell)
            if cell.gate != "ok" or came.step.get("attempts") != 1:
                break
        return came

    async def play_once(self, cell: Cell) -> Came:
        repeated, in_time = 0, True
        try:
            run_id = await self.begin(cell)
        except BaseException as error:
            if cell.situation is Situation.KILLED:
                self.ready[str(cell)].set_exception(error)
            raise
        match cell.situation:
            case Situation.CANCEL:
                await self.call("POST", f"{RUNS}/{run_id}/cancel")
            case Situation.KILLED:
                self.ready[str(cell)].set_result(run_id)
                async with asyncio.timeout(WITHIN):
                    in_time = await self.killed[str(cell)]
                await self.answer(cell, run_id)
            case Situation.REDELIVERED:
                repeated = await self.again(cell, run_id)
            case Situation.SUCCESS | Situation.FINAL:
                await self.answer(cell, run_id)
        return replace(await self.came(cell, run_id), repeated=repeated, in_time=in_time)

    async def begin(self, cell: Cell) -> UUID:
        """Start a run, and wait until it is at the step in question where that matters."""
        if cell.kind == "a field":
            await self.call("POST", f"/records/v1/{THING}", {"id": cell.token, "data": {"n": 0}})
        workflow = await self.active(str(cell), cell.document(self.out))
        body = {"workflow_id": workflow, "trigger_data": {"soon": "soon"}}
        run_id = UUID((await self.call("POST", RUNS, body))["id"])
        if cell.situation in (Situation.CANCEL, Situation.KILLED, Situation.REDELIVERED):
            if cell.gate == "held":
                await self.out.until_asked(f"gate-{cell.token}", WITHIN)
            else:
                await self.until_at_work(cell, run_id)
        return run_id

    async def until_at_work(self, cell: Cell, run_id: UUID) -> None:
        if cell.reaches:
            await self.out.until_asked(cell.token, WITHIN)
        elif cell.vertex == RUNNER:
            await self.wire.until(lambda: self.wire.deliveries[run_id, cell.acts], WITHIN)
        else:
            await self.until_open(run_id)

    async def until_told(self, run_id: UUID, node: str) -> None:
        """Until a runner has said what became of a step."""
        await self.wire.until(lambda: self.wire.results(run_id, node), WITHIN)

    async def answer(self, cell: Cell, run_id: UUID) -> None:
        """What an approval, or a wait for a record, waits for."""
        if cell.type == "logic_approval":
            step = await self.until_open(run_id)
            decision = "reject" if cell.situation is Situation.FINAL else "approve"
            path = f"{step['approval']['href']}/respond"
            await self.call("POST", path, {"decision": decision, "user": "ana"})
        elif cell.kind == "a field" and cell.situation is not Situation.FINAL:
            await self.until_open(run_id)
            path = f"/records/v1/{THING}/{cell.token}"
            await self.call("PATCH", path, {"data": {"n": 1}})

    async def again(self, cell: Cell, run_id: UUID) -> int:
        """Deliver everything once more: the dispatch while a runner is at it, or has just been, and
        what the orchestrator was told before the run goes on, and after.
        """
        if cell.gate:
            self.out.release(f"gate-{cell.token}")
            await self.until_told(run_id, "gate")
        if cell.vertex == RUNNER:
            await self.twice(cell, run_id)
        repeated = await self.wire.deliver_events(run_id)
        self.out.release(cell.token)
        await self.answer(cell, run_id)
        await self.out.until_asked(f"tail-{cell.token}", WITHIN)
        if cell.type == "meta_subworkflow" and (step := await self.step(run_id)) is not None:
            await self.wire.deliver_end(UUID(step["run_id"]), WITHIN)
        repeated += await self.wire.deliver_events(run_id)
        self.out.release(f"tail-{cell.token}")
        return repeated

    async def twice(self, cell: Cell, run_id: UUID) -> None:
        """Until two runners are at it, or it was done twice. A runner that is at it drops what
        comes again, so it may take more than one delivery.
        """

        def is_twice() -> bool:
            if cell.reaches:
                return self.out.asked[cell.token] >= 2
            return len(self.wire.results(run_id, cell.acts)) >= 2

        async with asyncio.timeout(WITHIN):
            while not is_twice():
                await self.wire.deliver_step(run_id, cell.acts)
                await asyncio.sleep(LOOK_EVERY)

    async def came(self, cell: Cell, run_id: UUID) -> Came:
        run = await self.until_ended(run_id)
        step = await self.step(run_id)
        events = (await self.http.get(f"{RUNS}/{run_id}/stream")).text
        successes = Counter(
            _data(event)["node"]
            for event in events.split("\n\n")
            if "event: step_completed" in event
        )
        if cell.kind == "async" and cell.situation is not Situation.FINAL:
            await self.out.until_asked(cell.token, WITHIN)
        rows = None
        if cell.vertex == RUNNER and (cell.type, cell.kind) in WRITING:
            table, _ = WRITING[cell.type, cell.kind]
            written = text(cell.type, cell.situation, cell.kind)
            rows = await self.tables.count(table, written)
        return Came(
            run["status"],
            run["error"],
            step or {},
            successes,
            self.out.asked[cell.token],
            frozenset(self.out.keys[cell.token]),
            self.wire.deliveries[run_id, cell.acts],
            tuple(self.wire.results(run_id, cell.acts)),
            rows,
        )

    # --- what happens to all of them --------------------------------------------------------------

    async def kill(self, wanted: list[Cell], others: list[asyncio.Task[Came]]) -> None:
        """Kill every orchestrator, then every runner, once all others are over, and those that wait
        for it are at the point.
        """
        await asyncio.wait(others)
        await asyncio.wait([self.ready[str(cell)] for cell in wanted])
        runs = {
            cell: ready.result()
            for cell in wanted
            if (ready := self.ready[str(cell)]).exception() is None
        }
        orchestrated = {cell: run for cell, run in runs.items() if cell.vertex == ORCHESTRATOR}
        await self.kill_orchestrators(orchestrated)
        await self.kill_runners({cell: run for cell, run in runs.items() if cell.vertex == RUNNER})
        for cell in orchestrated:
            self.out.release(cell.token)

    def tell_failure(self, killing: asyncio.Task[None]) -> None:
        """Nobody waits in vain for a kill that has failed."""
        error = None if killing.cancelled() else killing.exception()
        for killed in self.killed.values():
            if error is not None and not killed.done():
                killed.set_exception(error)

    async def kill_orchestrators(self, runs: dict[Cell, UUID]) -> None:
        """What is to be decided after the kill is let go while no orchestrator is there."""
        await self.let_go_late(runs)
        self.kill_all(ORCHESTRATOR)
        steps = await asyncio.gather(*map(self.step, runs.values()))
        after = {cell: run for cell, run in runs.items() if cell.gate and not cell.late}
        for cell in after:
            self.out.release(f"gate-{cell.token}")
        for run_id in after.values():
            await self.until_told(run_id, "gate")
        for cell, step in zip(runs, steps, strict=True):
            in_time = step is None if cell in after else step["finished_at"] is None
            self.killed[str(cell)].set_result(in_time)

    async def kill_runners(self, runs: dict[Cell, UUID]) -> None:
        await self.let_go_late(runs)
        self.kill_all(RUNNER)
        for cell, run_id in runs.items():
            self.killed[str(cell)].set_result(not self.wire.results(run_id, cell.acts))
            self.out.release(cell.token)
        await self.tables.release()

    async def let_go_late(self, runs: dict[Cell, UUID]) -> None:
        """Let go what begins just before the kill, until all of it is at work."""
        late = {cell: run for cell, run in runs.items() if cell.late}
        for cell in late:
            self.out.release(f"gate-{cell.token}")
        await asyncio.gather(*(self.until_at_work(*each) for each in late.items()))

    def kill_all(self, vertex: str) -> None:
        for member in self.cluster.pick(vertex):
            assert self.cluster.signal(member, signal.SIGKILL)

    async def everything(self) -> dict[str, Came | BaseException]:
        child = {"id": "it", "type": "action_http", "config": {"url": "{{trigger.url}}"}}
        trigger = {"id": "t", "type": "trigger_manual", "config": {}}
        edge = {"id": "e", "source": "t", "target": "it"}
        await self.active(CHILD, {"nodes": [trigger, child], "edges": [edge]})
        wanted = cells(self.out)
        waiting = [cell for cell in wanted if cell.situation is Situation.KILLED]
        for cell in waiting:
            self.ready[str(cell)] = asyncio.get_running_loop().create_future()
            self.killed[str(cell)] = asyncio.get_running_loop().create_future()
        plays = {cell: asyncio.create_task(self.play(cell)) for cell in wanted}
        others = [play for cell, play in plays.items() if cell not in waiting]
        killing = asyncio.create_task(self.kill(waiting, others))
        killing.add_done_callback(self.tell_failure)
        came = await asyncio.gather(*plays.values(), return_exceptions=True)
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        return dict(zip(map(str, wanted), came, strict=True))


def _data(event: str) -> dict[str, Any]:
    """The data of a server-sent event."""
    lines = [line[6:] for line in event.splitlines() if line.startswith("data: ")]
    found: dict[str, Any] = json.loads("\n".join(lines)) if lines else {}
    return found


async def play_everything(folder: Path) -> dict[str, Came | BaseException]:
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
            # A slow machine is not taken for a silent one: what fails once would fare better there.
            "PERMAFLOW_RECONCILE_AFTER": "20",
        }

        async def prepare(cluster: Cluster) -> None:
            assert cluster.stack is not None
            assert cluster.stack.database_url
            flaky = (token(name, Situation.RETRYABLE, kind) for name, kind in WRITING)
            await set_up(cluster.stack.database_url, flaky)
            cluster.settings["PERMAFLOW_SOURCES"] = f"shop={cluster.stack.database_url}"

        cluster = Cluster(folder, VERTICES, settings=settings, prepare=prepare)
        await cluster.start(stack)
        assert cluster.stack is not None
        assert cluster.stack.database_url
        assert cluster.stack.nats_url
        held = await stack.enter_async_context(tables(cluster.stack.database_url))
        overheard = await stack.enter_async_context(wire(cluster.stack.nats_url))
        http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{cluster.port}",
            headers={"Authorization": f"Bearer {cluster.api_key}"},
            timeout=30.0,
        )
        await stack.enter_async_context(http)
        return await Play(cluster, http, out, held, overheard, {}, {}).everything()
