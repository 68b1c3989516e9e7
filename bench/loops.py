"""A loop over 10,000 items that are joined once, and one over ten times as many; with a body of one
node, and of three.

What counts is that it is fast, that an item of the large loop costs what one of the small loop
costs, and that memory stays where it is: the orchestrator's after one small loop and after several,
and at its highest during the large loop and a small one.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from bench.documents import long_body, loop
from bench.report import Line
from bench.stand import BenchError, Stand, stand
from bench.usage import resident_bytes
from permaflow.plan import Json

SIZES = {"quick": (500, 2, 2_000), "full": (10_000, 4, 100_000), "long": (10_000, 12, 100_000)}
"""Items of the small loop, how often it runs, items of the large one."""

LONG_TIMES = 2
"""How often the small loop with the body of three nodes runs."""

TARGET_SECONDS = 2.0
TARGET_RATIO = 1.2
TARGET_GROWTH = 1.1
WITHIN = 180.0
SAMPLE_EVERY = 0.1


async def bench(scale: str) -> dict[str, Any]:
    small, times, large = SIZES[scale]
    async with stand() as system:
        one = await measure(system, loop(), small, times, large)
    async with stand() as system:
        three = await measure(system, long_body(), small, min(times, LONG_TIMES), large)
    return {**one, "three_nodes": three}


async def measure(
    system: Stand, document: Json, small: int, times: int, large: int
) -> dict[str, Any]:
    """Small loops, then a large one."""
    workflow = await system.workflow(document)
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
            "peak_small": max(each["mb_peak"] for each in rounds),
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
    small, three, memory = result["small"], result["three_nodes"], result["orchestrator_mb"]
    growth = memory["after_last"] / max(memory["after_first"], 0.1)
    return [
        Line(
            f"loop over {small['items']:,} items, joined once",
            f"{small['seconds']:.2f} s",
            f"≤ {TARGET_SECONDS:g} s",
            small["seconds"] <= TARGET_SECONDS,
        ),
        *_large(result, "loop"),
        Line(
            "orchestrator's memory, last small loop ÷ first",
            f"{growth:.2f} ({memory['after_last']:.0f} MB)",
            f"flat (≤ {TARGET_GROWTH})",
            growth <= TARGET_GROWTH,
        ),
        Line(
            f"loop over {three['small']['items']:,} items with a body of three nodes",
            f"{three['small']['seconds']:.2f} s",
        ),
        *_large(three, "the same"),
    ]


def _large(result: dict[str, Any], what: str) -> list[Line]:
    """How the large loop compares with the small one."""
    large, cost, memory = result["large"], result["us_per_item"], result["orchestrator_mb"]
    ratio = cost["large"] / cost["small"]
    peak = memory["peak_large"] / max(memory["peak_small"], 0.1)
    return [
        Line(f"{what} over {large['items']:,} items", f"{large['seconds']:.2f} s"),
        Line(
            "cost of an item, large loop ÷ small loop",
            f"{ratio:.2f} ({cost['large']:.0f} µs ÷ {cost['small']:.0f} µs)",
            f"flat (≤ {TARGET_RATIO})",
            ratio <= TARGET_RATIO,
        ),
        Line(
            "orchestrator's memory at its highest, large loop ÷ small",
            f"{peak:.2f} ({memory['peak_large']:.0f} MB ÷ {memory['peak_small']:.0f} MB)",
            f"flat (≤ {TARGET_RATIO})",
            peak <= TARGET_RATIO,
        ),
    ]
