"""One step of a chain in an idle system: from one commit of the run to the next.

A chain of 200 no-op steps, one run at a time. Between two rows of its journal lie the dispatch, the
work, the result, the decision and the commit; the difference of their times is the step.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from bench.documents import chain
from bench.report import Line, spread
from bench.stand import Stand, stand
from bench.usage import by_step

SIZES = {"quick": (50, 2), "full": (200, 10), "long": (200, 50)}
"""Steps of a run, runs."""

TARGET_P50, TARGET_P99 = 1.2, 5.0
WITHIN = 60.0


async def bench(scale: str, profile: str = "") -> dict[str, Any]:
    async with stand(profile=profile) as system:
        return await measure(system, *SIZES[scale])


async def measure(system: Stand, steps: int, runs: int) -> dict[str, Any]:
    times: list[float] = []
    workflow = await system.workflow(chain(steps, given={"x": 1}))
    await system.start(workflow["id"])
    await system.finished(WITHIN)
    meter = system.meter()
    for _ in range(runs):
        (run_id,) = await system.start(workflow["id"])
        await system.finished(WITHIN)
        at = [row[0] for row in await system.query("times", run_id)]
        times += [later - earlier for earlier, later in pairwise(at)]
    used = meter.seconds()
    return {
        "steps": steps,
        "runs": runs,
        "step_ms": spread(times),
        "cpu_us_per_step": by_step(used, steps * runs),
        "others_cpu_s": round(used["others"], 2),
    }


def lines(result: dict[str, Any]) -> list[Line]:
    step = result["step_ms"]
    return [
        Line(
            "one step, p50",
            f"{step['p50']:.2f} ms",
            f"≤ {TARGET_P50} ms",
            step["p50"] <= TARGET_P50,
        ),
        Line(
            "one step, p99",
            f"{step['p99']:.2f} ms",
            f"≤ {TARGET_P99} ms",
            step["p99"] <= TARGET_P99,
        ),
    ]
