"""Durable steps per second: 2,000 runs of ten no-op steps, from the first start to the last end.

One process of each vertex, all of them on, and the start of the runs is part of the time. A round
that does not complete every run is an error, not a figure.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.documents import chain
from bench.report import Line
from bench.stand import BenchError, Stand, stand
from bench.usage import by_step

SIZES = {"quick": (100, 10, 2), "full": (2_000, 10, 5), "long": (10_000, 10, 5)}
"""Runs, steps of each, rounds."""

TARGET = 15_000
WITHIN = 120.0


async def bench(scale: str, profile: str = "") -> dict[str, Any]:
    async with stand(profile=profile) as system:
        return await measure(system, *SIZES[scale])


async def measure(system: Stand, runs: int, steps: int, rounds: int) -> dict[str, Any]:
    workflow = await system.workflow(chain(steps, given={"x": 1, "text": "h" * 300}))
    await _round(system, workflow["id"], max(1, runs // 20), steps)
    measured = [await _round(system, workflow["id"], runs, steps) for _ in range(rounds)]
    rates = [each["steps_per_s"] for each in measured]
    median = statistics.median(rates)
    middle = min(measured, key=lambda each: abs(each["steps_per_s"] - median))
    return {
        "runs": runs,
        "steps": steps,
        "steps_per_s": {"min": min(rates), "median": round(median), "max": max(rates)},
        "cpu_us_per_step": middle["cpu_us_per_step"],
        "others_cpu": middle["others_cpu"],
        "rounds": measured,
    }


async def _round(system: Stand, workflow_id: str, runs: int, steps: int) -> dict[str, Any]:
    meter = system.meter()
    began = await system.value("now")
    await system.start(workflow_id, runs)
    await system.finished(WITHIN)
    used = meter.seconds()
    ends = await system.query("ends", began)
    if [(status, count) for status, count, _ in ends] != [("completed", runs)]:
        raise BenchError(f"Not all of {runs} runs were completed: {ends}")
    seconds = (ends[0][2] - began).total_seconds()
    return {
        "seconds": round(seconds, 3),
        "steps_per_s": round(runs * steps / seconds),
        "cpu_us_per_step": by_step(used, runs * steps),
        "others_cpu": round(used["others"] / seconds, 2),
    }


def lines(result: dict[str, Any]) -> list[Line]:
    rate = result["steps_per_s"]
    what = f"durable steps/s, {result['runs']:,} runs × {result['steps']} steps"
    reached = f"{rate['median']:,} ({rate['min']:,}–{rate['max']:,})"
    used = result["cpu_us_per_step"]
    names = ("orchestrator", "runner", "postgres", "nats")
    engine = sum(value for name, value in used.items() if name != "bench")
    parts = ", ".join(f"{name} {used[name]:.0f}" for name in names)
    return [
        Line(what, reached, f"≥ {TARGET:,}", rate["median"] >= TARGET),
        Line("CPU µs per step, all processes", f"{engine:.0f}: {parts}"),
        Line("processors that others used meanwhile", f"{result['others_cpu']:.1f}"),
    ]
