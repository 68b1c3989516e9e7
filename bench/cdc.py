"""From a commit in the watched table to the first step of the run that it starts.

Rows are inserted one by one at a steady rate; the clock starts when the client knows of its commit.
Between lie the database's log, ingest, the start's own transaction, the orchestrator, its
transaction, and the dispatch. `dispatched` ends where the journal says that the first step is on
its way, `step` where the step's own code looks at the clock. All are clocks of one machine.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any
from uuid import UUID

import orjson

from bench.documents import chain
from bench.report import Line, spread
from bench.stand import BenchError, Stand, stand
from pipeline.core.entries import Dispatched, Succeeded, from_row

SIZES = {"quick": (40, 50.0), "full": (500, 50.0), "long": (3_000, 50.0)}
"""Rows, rows per second."""

WARM_UP = 20
TARGET = 50.0
WITHIN = 30.0


async def bench(scale: str) -> dict[str, Any]:
    rows, rate = SIZES[scale]
    trigger = {
        "id": "t",
        "type": "trigger_record",
        "config": {"object": "bench_order", "event": "created"},
    }
    document = chain(1, trigger, slug="moment", given="{{trigger.record.id}}")
    async with stand(functions="bench.functions") as system:
        await system.query("make_orders")
        workflow = await system.workflow(document)

        async def published() -> bool:
            return bool(await system.value("published"))

        await system.until(published, "The table's publication", WITHIN)
        committed = await _insert(system, WARM_UP + rows, rate)

        async def all_ended() -> bool:
            statuses = dict(await system.query("statuses", UUID(workflow["id"])))
            return int(statuses.get("completed", 0)) == len(committed)

        await system.until(all_ended, f"The end of {len(committed)} runs", WITHIN)
        dispatched, stepped = _times(await system.query("journals", UUID(workflow["id"])))
    if set(stepped) != set(committed):
        raise BenchError(f"{len(committed)} rows were inserted; {len(stepped)} of them had a run.")
    measured = sorted(committed)[WARM_UP:]
    return {
        "rows": rows,
        "rows_per_s": rate,
        "dispatched_ms": spread([dispatched[row] - committed[row] for row in measured]),
        "step_ms": spread([stepped[row] - committed[row] for row in measured]),
    }


async def _insert(system: Stand, count: int, rate: float) -> dict[int, float]:
    """Row → when its commit was known."""
    committed: dict[int, float] = {}
    start = time.monotonic()
    for number in range(count):
        await asyncio.sleep(start + number / rate - time.monotonic())
        row = await system.value("order", f"customer {number}", number)
        committed[row] = time.time()
    return committed


def _times(journals: list[tuple[Any, ...]]) -> tuple[dict[int, float], dict[int, float]]:
    """Row → when its run's first dispatch was written, and when its step ran."""
    dispatched: dict[UUID, float] = defaultdict(lambda: float("inf"))
    first: dict[int, float] = {}
    stepped: dict[int, float] = {}
    for run_id, at, entries in journals:
        for entry in from_row(orjson.loads(entries)):
            match entry:
                case Dispatched():
                    dispatched[run_id] = min(dispatched[run_id], at)
                case Succeeded(output={"given": int(row), "at": float(moment)}):
                    first[row] = dispatched[run_id]
                    stepped[row] = moment
                case _:
                    pass
    return first, stepped


def lines(result: dict[str, Any]) -> list[Line]:
    step, dispatched = result["step_ms"], result["dispatched_ms"]
    return [
        Line(
            "commit in the source → first step starts, p99",
            f"{step['p99']:.1f} ms",
            f"≤ {TARGET:g} ms",
            step["p99"] <= TARGET,
        ),
        Line("the same, p50", f"{step['p50']:.1f} ms"),
        Line("commit in the source → first step dispatched, p99", f"{dispatched['p99']:.1f} ms"),
    ]
