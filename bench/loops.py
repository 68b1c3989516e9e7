"""A loop over 10,000 items that are joined once, and one over ten times as many.

What counts is that it is fast, that an item of the large loop costs what one of the small loop
costs, and that memory stays where it is: the orchestrator's after one small loop and after several.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from bench.documents import loop
from bench.report import Line
from bench.stand import BenchError, Stand, stand
from bench.usage import resident_bytes

SIZES = {"quick": (500, 2, 2_000), "full": (10_000, 4, 100_000), "long": (10_000, 12, 100_000)}
"""Items of the small loop, how often it runs, items of the large one."""

TARGET_SECONDS = 2.0
TARGET_RATIO = 1.2
TARGET_GROWTH = 1.1
WITHIN = 180.0
SAMPLE_EVERY = 0.1


async def bench(scale: str) -> dict[str, Any]:
    small, times, large = SIZES[scale]
    async with stand() as system:
        workflow = await system.workflow(loop())
        await _loop(system, workflow["id"], max(10, small // 20))
        rounds = [await _loop(system, workflow["id"], small) for _ in range(times)]
        big = await _loop(system, workflow["id"], large)
    seconds = [each["seconds"] for each in rounds]
    cost = statistics.median(each["us_per_item"] for each in rounds)
    return {
        "small": {"items": small, "seconds": round(statistics.median(seconds), 3)},
        "large": {"items": large, "seconds": big["seconds"]},
        "us_per_item": {"small": cost, "large": big["us_per_item"]},
        "orchestrator_mb": {
            "before": rounds[0]["mb_before"],
            "after_first": rounds[0]["mb_after"],
            "after_last": rounds[-1]["mb_after"],
            "peak_large": big["mb_peak"],
            "after_large": big["mb_after"],
        },
        "rounds": [*rounds, big],
    }


async def _loop(system: Stand, workflow_id: str, items: int) -> dict[str, Any]:
    pid = system.processes["orchestrator"].pid
    before = resident_bytes(pid)
    peak = [before]

    async def watch() -> None:
        while True:
            peak.append(resident_bytes(pid))
            await asyncio.sleep(SAMPLE_EVERY)

    watching = asyncio.create_task(watch())
    try:
        (run_id,) = await system.start(workflow_id, data={"items": list(range(items))})
        await system.finished(WITHIN)
    finally:
        watching.cancel()
    if await system.query("known", [run_id]) != [(1, 1)]:
        raise BenchError(f"The loop over {items} items was not completed.")
    ((seconds, rows),) = await system.query("span", run_id)
    return {
        "items": items,
        "seconds": round(seconds, 3),
        "us_per_item": round(seconds / items * 1e6, 1),
        "journal_rows": rows,
        "mb_before": round(before / 1e6, 1),
        "mb_peak": round(max(peak) / 1e6, 1),
        "mb_after": round(resident_bytes(pid) / 1e6, 1),
    }


def lines(result: dict[str, Any]) -> list[Line]:
    small, large, cost = result["small"], result["large"], result["us_per_item"]
    memory = result["orchestrator_mb"]
    ratio = cost["large"] / cost["small"]
    growth = memory["after_last"] / max(memory["after_first"], 0.1)
    return [
        Line(
            f"loop over {small['items']:,} items, joined once",
            f"{small['seconds']:.2f} s",
            f"≤ {TARGET_SECONDS:g} s",
            small["seconds"] <= TARGET_SECONDS,
        ),
        Line(f"loop over {large['items']:,} items", f"{large['seconds']:.2f} s"),
        Line(
            "cost of an item, large loop ÷ small loop",
            f"{ratio:.2f} ({cost['large']:.0f} µs ÷ {cost['small']:.0f} µs)",
            f"flat (≤ {TARGET_RATIO})",
            ratio <= TARGET_RATIO,
        ),
        Line(
            "orchestrator's memory, last small loop ÷ first",
            f"{growth:.2f} ({memory['after_last']:.0f} MB; large {memory['peak_large']:.0f} MB)",
            f"flat (≤ {TARGET_GROWTH})",
            growth <= TARGET_GROWTH,
        ),
    ]
