"""Workloads whose outcome is known beforehand, and what must hold of them whatever happened."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import orjson

from permaflow.errors import StoreError
from permaflow.plan import Json
from permaflow.task_types import TaskTypeRegistry
from pipeline.bus.jetstream import JetStreamBus
from pipeline.core.entries import Dispatched, Finished, Succeeded, from_row
from pipeline.core.program import Program
from pipeline.core.replay import replay
from pipeline.core.state import Run
from pipeline.ids import new_id
from pipeline.starter import announce
from pipeline.store import orgs, starts, workflows
from pipeline.store.database import Database
from specs.dialects import compile_document
from tests.fix_engine import graph

RETRY = {"max_retries": 20, "initial_delay_ms": 20, "max_delay_ms": 200}


def effect(name: str, **config: Json) -> dict[str, Any]:
    more = {key: config.pop(key) for key in ("parentId", "on_error", "compensate") if key in config}
    return {"id": name, "type": "fault_effect", "config": config, "retry": RETRY, **more}


def undo(value: Json) -> dict[str, Any]:
    """A compensation whose first attempt fails."""
    return {"type": "fault_effect", "config": {"value": value, "fail": 1}, "retry": RETRY}


UNDONE = ["t", "a", "b", "b#compensate", "a#compensate"]
"""What succeeds in a run that is undone, in this order, and each once."""

DOCUMENTS: dict[str, Json] = {
    "chain": graph(
        effect("a", value="{{trigger.n}}"),
        effect("b", value="{{steps.a.output.chain}}"),
        effect("c", value="{{steps.b.output.chain}}", fail=1),
        effect("d", value="{{steps.c.output.chain}}"),
        edges=["t>a", "a>b", "b>c", "c>d"],
    ),
    "diamond": graph(
        effect("a", value="{{trigger.n}}"),
        effect("b", value="{{steps.a.output.chain}}"),
        effect("c", value="{{steps.a.output.chain}}", seconds=0.02),
        effect("d", value=["{{steps.b.output.chain}}", "{{steps.c.output.chain}}"]),
        edges=["t>a", "a>b", "a>c", "b>d", "c>d"],
    ),
    "loop": graph(
        {
            "id": "each",
            "type": "logic_loop",
            "config": {"items": "{{trigger.items}}", "mode": "parallel", "concurrency": 5},
        },
        effect("body", value="{{loop.item}}", parentId="each"),
        effect("sum", value="{{steps.each.output.items}}"),
        edges=["t>each", "each>sum"],
    ),
    "delay": graph(
        effect("a", value="{{trigger.n}}"),
        {"id": "pause", "type": "logic_delay", "config": {"duration": 0.3}},
        effect("b", value="{{steps.a.output.chain}}"),
        edges=["t>a", "a>pause", "pause>b"],
    ),
    "refused": graph(effect("a", reject=True), effect("b"), edges=["t>a", "a>b"]),
    "undone": graph(
        effect("a", value="{{trigger.n}}", compensate=undo("{{steps.a.output.chain}}")),
        effect("b", value="{{steps.a.output.chain}}", compensate=undo("{{steps.b.output.chain}}")),
        effect("c", reject=True),
        edges=["t>a", "a>b", "b>c"],
    ),
    "posted": graph(effect("a", value="{{trigger.n}}"), edges=["t>a"]),
    "inserted": {
        "nodes": [
            {
                "id": "t",
                "type": "trigger_record",
                "config": {"object": "fault_order", "event": "created"},
            },
            effect("a", value="{{trigger.record.n}}"),
        ],
        "edges": [{"id": "e", "source": "t", "target": "a"}],
    },
}
DIRECT = ("chain", "diamond", "loop", "delay", "refused", "undone")
"""The kinds that are started in the store; the others come in by doors of their own."""


def expected(kind: str, n: int) -> tuple[str, Json]:
    """The status and the last output of a run of this kind, by a model that shares no code."""
    match kind:
        case "chain":
            return "completed", {"chain": [[[[n, "a"], "b"], "c"], "d"]}
        case "diamond":
            return "completed", {"chain": [[[[n, "a"], "b"], [[n, "a"], "c"]], "d"]}
        case "loop":
            bodies = [{"chain": [item, "body"]} for item in range(n % 12)]
            return "completed", {"chain": [bodies, "sum"]}
        case "delay":
            return "completed", {"chain": [[n, "a"], "b"]}
        case "undone":
            return "compensated", None
        case "posted" | "inserted":
            return "completed", {"chain": [n, "a"]}
        case _:
            return "failed", None


@dataclass
class Workload:
    """Starts runs until told otherwise, and knows what must become of each."""

    database: Database
    bus: JetStreamBus
    types: TaskTypeRegistry
    seed: int
    org: UUID | None = None
    ids: dict[str, UUID] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)
    wanted: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    posted: dict[str, UUID] = field(default_factory=dict)
    inserted: set[int] = field(default_factory=set)

    async def prepare(self) -> None:
        self.org = (await self.database.run(orgs.ensure)).id
        for kind, document in DOCUMENTS.items():
            compiled = compile_document(document, self.types)
            assert compiled.plan is not None, compiled.problems
            self.programs[kind] = Program(compiled.plan)
            self.ids[kind] = new_id()
            draft = workflows.Draft(kind, orjson.dumps(document), "graph", compiled.triggers)
            await self.database.run(workflows.create, self.org, self.ids[kind], draft)
            await self.database.run(
                workflows.set_status, self.org, self.ids[kind], "active", compiled.triggers
            )

    async def start(self, count: int) -> None:
        """Start runs, each with a key, so that an answer that got lost is asked for again."""
        assert self.org is not None
        chance = random.Random(f"{self.seed}:{len(self.wanted)}")
        requests = []
        for _ in range(count):
            kind = chance.choice(DIRECT)
            n = chance.randrange(1000)
            data = {"n": n, "items": list(range(n % 12))}
            run_id = new_id()
            self.wanted[run_id] = (kind, n)
            requests.append(
                starts.StartRequest(
                    run_id,
                    self.org,
                    self.ids[kind],
                    "api",
                    key=run_id.bytes + run_id.bytes,
                    input=orjson.dumps(data),
                )
            )
        while True:
            try:
                results = await self.database.run(starts.start_runs, requests)
            except StoreError:
                await asyncio.sleep(0.2)
                continue
            announce(self.bus, requests, results)
            return

    async def post(self, http: httpx.AsyncClient, count: int) -> None:
        """Start runs over HTTP, asking again with the same key until there is an answer."""
        for _ in range(count):
            n = len(self.posted)
            key = f"{self.seed}-{n}"
            body = {"workflow_id": str(self.ids["posted"]), "trigger_data": {"n": n}}
            while True:
                try:
                    answer = await http.post(
                        "/workflows/v1/runs", json=body, headers={"Idempotency-Key": key}
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code in (200, 202):
                    self.posted[key] = UUID(answer.json()["id"])
                    self.wanted[self.posted[key]] = ("posted", n)
                    break
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)

    async def insert(self, count: int) -> None:
        """Insert rows into the watched table, again until each is known to be committed."""
        for _ in range(count):
            n = len(self.inserted)
            while True:
                try:
                    async with self.database.connection() as connection:
                        await connection.execute(
                            "insert into fault_order values (%s, %s) on conflict do nothing", (n, n)
                        )
                    break
                except StoreError:
                    await asyncio.sleep(0.1)
            self.inserted.add(n)

    async def started_by_inserts(self) -> int:
        """How many of the inserted rows have their run."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "select count(*) from permaflow.run where workflow_id = %s", (self.ids["inserted"],)
            )
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def open_runs(self) -> int:
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "select count(*) from permaflow.run where finished_at is null"
            )
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def settled(self, within: float) -> int:
        """Wait until no run is open; answers how many still are when time is up."""
        deadline = asyncio.get_running_loop().time() + within
        left = -1
        while asyncio.get_running_loop().time() < deadline:
            try:
                left = await self.open_runs()
            except StoreError:
                left = -1
            if left == 0 and await self.started_by_inserts() >= len(self.inserted):
                return 0
            await asyncio.sleep(0.2)
        return left

    async def stuck(self) -> list[str]:
        """The runs that are open, each with the end of its journal."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "select r.id, r.status,"
                " (select count(*) from permaflow.timer t where t.run_id = r.id),"
                " (select string_agg(j.entries::text, ' | ' order by seq) from permaflow.journal j"
                " where j.run_id = r.id) from permaflow.run r where r.finished_at is null limit 5"
            )
            return [
                f"{run_id} {status}, {timers} timers: ...{(text or '')[-600:]}"
                for run_id, status, timers, text in await cursor.fetchall()
            ]

    async def violations(self, effects: dict[str, int]) -> list[str]:
        """Everything that is wrong with what is in the store and in the witness."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "select id, status, input::text, workflow_id from permaflow.run where org_id = %s",
                (self.org,),
            )
            found = {}
            rows: Counter[int] = Counter()
            for run_id, status, text, workflow_id in await cursor.fetchall():
                found[run_id] = (status, text)
                if workflow_id == self.ids["inserted"]:
                    n = orjson.loads(text)["record"]["n"]
                    rows[n] += 1
                    self.wanted[run_id] = ("inserted", n)
            cursor = await connection.execute(
                "select run_id, seq, entries::text from permaflow.journal order by run_id, seq"
            )
            journals: dict[UUID, list[tuple[int, str]]] = {run_id: [] for run_id in found}
            for run_id, seq, entries in await cursor.fetchall():
                journals[run_id].append((seq, entries))
        wrong = [f"row {n} started {rows[n]} runs" for n in self.inserted if rows[n] != 1]
        wrong += [f"{run_id}: lost" for run_id in self.wanted if run_id not in found]
        wrong += [f"{run_id}: nobody asked for it" for run_id in found if run_id not in self.wanted]
        for run_id, (kind, n) in self.wanted.items():
            if run_id in found:
                status, text = found[run_id]
                wrong += self._check_run(run_id, kind, n, status, text, journals[run_id], effects)
        return wrong

    def _check_run(
        self,
        run_id: UUID,
        kind: str,
        n: int,
        status: str,
        text: str,
        rows: list[tuple[int, str]],
        effects: dict[str, int],
    ) -> list[str]:
        name = f"{run_id} ({kind})"
        if [seq for seq, _ in rows] != list(range(1, len(rows) + 1)):
            return [f"{name}: gaps in the journal"]
        journal = [(seq, from_row(orjson.loads(entries))) for seq, entries in rows]
        entries = [entry for _, row in journal for entry in row]
        wrong = []
        ends = [e for e in entries if isinstance(e, Finished)]
        if len(ends) != 1:
            return [f"{name}: {len(ends)} ends"]
        applied = Counter((e.scope, e.node) for e in entries if isinstance(e, Succeeded))
        wrong += [
            f"{name}: {key} applied {many} times" for key, many in applied.items() if many > 1
        ]
        if kind == "undone" and [e.node for e in entries if isinstance(e, Succeeded)] != UNDONE:
            wrong.append(f"{name}: not undone in order: {entries}")
        sent = Counter((e.scope, e.node, e.attempt) for e in entries if isinstance(e, Dispatched))
        wrong += [
            f"{name}: {key} dispatched {many} times" for key, many in sent.items() if many > 1
        ]
        for scope, node, attempt in sent:
            if not effects.get(f"{run_id}:{scope}:{node}:{attempt}"):
                wrong.append(f"{name}: {scope}/{node} attempt {attempt} had no effect")
        run = replay(Run(run_id, self.programs[kind], orjson.loads(text), "t"), journal)
        wanted_status, wanted_output = expected(kind, n)
        if (status, run.status) != (wanted_status, wanted_status):
            wrong.append(f"{name}: {status}/{run.status}, not {wanted_status}: {entries[-2:]}")
        elif wanted_output is not None and run.output() != wanted_output:
            wrong.append(f"{name}: output {run.output()!r}, not {wanted_output!r}")
        return wrong
