"""100,000 runs that wait for a far-off moment: the way there, what they cost, if they live.

A waiting run is a row with a timer; no process thinks of it. So the query rate of the idle system
must not depend on how many there are. Some are cancelled and some fired at the end.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from bench import idle
from bench.documents import wait
from bench.report import Line
from bench.stand import Stand, stand
from pipeline.bus.subjects import TIMER
from pipeline.starter import cancel
from pipeline.store import runs

SIZES = {"quick": (500, 3.0), "full": (100_000, 20.0), "long": (100_000, 60.0)}
"""Runs, seconds of watching."""

DELAY = 86_400.0
SAMPLE = 100
WITHIN = 300.0
ALIVE_WITHIN = 30.0


async def bench(scale: str) -> dict[str, Any]:
    count, seconds = SIZES[scale]
    async with stand(statements=True) as system:
        workflow = await system.workflow(wait(DELAY))
        workflow_id = UUID(workflow["id"])
        before = system.resident()
        began = time.monotonic()
        ids = await system.start(workflow["id"], count)
        started = time.monotonic() - began

        async def waiting() -> bool:
            statuses = dict(await system.query("statuses", workflow_id))
            return statuses == {"waiting": count}

        await system.until(waiting, f"The wait of {count} runs", WITHIN, every=0.25)
        took = time.monotonic() - began
        watched = await idle.watch(system, seconds)
        resident = system.resident()
        sample = min(SAMPLE, count // 4)
        alive = await _sample(system, ids[:sample], ids[-sample:])
    return {
        "runs": count,
        "started_s": round(started, 2),
        "waiting_s": round(took, 2),
        "resident_mb": {"before": before, "waiting": resident},
        "sample": alive,
        "idle": watched,
    }


async def _sample(system: Stand, first: list[UUID], last: list[UUID]) -> dict[str, Any]:
    """Cancel the first, let the last go on; seconds until each group is through."""
    began = time.monotonic()
    for run_id in first:
        await system.database.run(runs.request_cancel, system.org, run_id, "bench")
        cancel(system.bus, run_id, system.org, "bench", "")

    async def ended(ids: list[UUID], status: str) -> bool:
        return bool(await system.value("ended_as", ids, status) == len(ids))

    await system.until(lambda: ended(first, "cancelled"), "The cancelling", ALIVE_WITHIN)
    cancelled = time.monotonic() - began
    began = time.monotonic()
    await system.query("fire_soon", last)
    system.bus.ring(TIMER, b"0")
    await system.until(lambda: ended(last, "completed"), "The end of the waiting", ALIVE_WITHIN)
    return {
        "cancelled": len(first),
        "cancelled_s": round(cancelled, 2),
        "fired": len(last),
        "fired_s": round(time.monotonic() - began, 2),
    }


def lines(result: dict[str, Any]) -> list[Line]:
    watched, sample = result["idle"], result["sample"]
    resident = result["resident_mb"]["waiting"]
    before = result["resident_mb"]["before"]
    return [
        Line(
            f"{result['runs']:,} waiting runs, queries per second",
            f"{watched['queries_per_s']:.2f}",
            f"< {idle.TARGET:g}",
            watched["queries_per_s"] < idle.TARGET,
        ),
        Line("from the first start until all wait", f"{result['waiting_s']:.1f} s"),
        Line(
            "orchestrator's memory, before and then",
            f"{before['orchestrator']:.0f} MB, {resident['orchestrator']:.0f} MB",
        ),
        Line(
            f"{sample['cancelled']} of them cancelled, {sample['fired']} gone on",
            f"{sample['cancelled_s']:.1f} s, {sample['fired_s']:.1f} s",
        ),
    ]
