"""Workflows that are large themselves: a sequence 1,000 deep, and 2,000 nodes, most of them side by
side.

A step of the deep sequence is to cost what one of a chain of ten costs.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.documents import chain, wide
from bench.report import Line
from bench.stand import BenchError, Stand, stand

SIZES = {"quick": (5, 100, 200), "full": (20, 1_000, 2_000), "long": (100, 1_000, 2_000)}
"""Runs of the chain of ten, steps of the deep sequence, nodes of the wide graph."""

SHORT = 10
TARGET_RATIO = 1.2
WITHIN = 60.0


async def bench(scale: str) -> dict[str, Any]:
    async with stand() as system:
        return await measure(system, *SIZES[scale])


async def measure(system: Stand, runs: int, deep: int, nodes: int) -> dict[str, Any]:
    short = (await system.workflow(chain(SHORT)))["id"]
    await _seconds(system, short)
    ten = statistics.median([await _seconds(system, short) for _ in range(runs)])
    long = (await system.workflow(chain(deep)))["id"]
    thousand = await _seconds(system, long)
    broad = (await system.workflow(wide(nodes - 3)))["id"]
    seconds = await _seconds(system, broad)
    return {
        "short": {"steps": SHORT, "runs": runs, "ms_per_step": round(ten / SHORT * 1e3, 3)},
        "deep": {
            "steps": deep,
            "seconds": round(thousand, 3),
            "ms_per_step": round(thousand / deep * 1e3, 3),
        },
        "wide": {"nodes": nodes, "seconds": round(seconds, 3)},
    }


async def _seconds(system: Stand, workflow_id: str) -> float:
    """From the first row of a run's journal to the last."""
    (run_id,) = await system.start(workflow_id)
    await system.finished(WITHIN)
    if await system.query("known", [run_id]) != [(1, 1)]:
        raise BenchError("A large workflow was not completed.")
    return float((await system.query("span", run_id))[0][0])


def lines(result: dict[str, Any]) -> list[Line]:
    short, deep, broad = result["short"], result["deep"], result["wide"]
    ratio = deep["ms_per_step"] / short["ms_per_step"]
    return [
        Line(f"sequence {deep['steps']:,} deep", f"{deep['seconds']:.2f} s"),
        Line(
            f"a step of it ÷ one of a chain of {short['steps']}",
            f"{ratio:.2f} ({deep['ms_per_step']:.2f} ms ÷ {short['ms_per_step']:.2f} ms)",
            f"flat (≤ {TARGET_RATIO})",
            ratio <= TARGET_RATIO,
        ),
        Line(f"graph of {broad['nodes']:,} nodes, joined once", f"{broad['seconds']:.2f} s"),
    ]
