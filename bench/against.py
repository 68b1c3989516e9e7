"""The same chain on other engines, and how Permaflow compares with each of them.

Throughput is ours by theirs, latency theirs by ours: above 1 is better for us in both. Ours are
those of the same call; each engine has its own environment (bench/peers/).
"""

from __future__ import annotations

from typing import Any

from bench.peers.measure import measure
from bench.report import Line
from bench.stand import BenchError

SIZES = {"quick": (100, 10, 5.0), "full": (2_000, 10, 30.0), "long": (10_000, 10, 60.0)}
"""Runs, steps of each, the most seconds for each phase."""

FASTER_THAN_RESTATE = 10.0


async def bench(scale: str, ours: dict[str, Any]) -> dict[str, Any]:
    for name in ("throughput", "latency"):
        if "error" in ours[name]:
            raise BenchError(f"There is nothing to compare with: {ours[name]['error']}")
    runs, steps, seconds = SIZES[scale]
    theirs = await measure(runs=runs, steps=steps, seconds=seconds)
    return {name: {**found, **ratios(found, ours)} for name, found in theirs.items()}


def ratios(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """How many times as fast, and as quick, we are; nothing where they failed."""
    if "error" in theirs:
        return {}
    step = ours["latency"]["step_ms"]
    rate = ours["throughput"]["steps_per_s"]["median"]
    return {
        "ratios": {
            "throughput": round(rate / theirs["throughput_steps_s"], 2),
            "step_p50": round(theirs["step_p50_ms"] / step["p50"], 2),
            "step_p99": round(theirs["step_p99_ms"] / step["p99"], 2),
        }
    }


def lines(result: dict[str, Any]) -> list[Line]:
    found: list[Line] = []
    for name, theirs in result.items():
        if "error" in theirs:
            found.append(Line(name, theirs["error"], met=False))
            continue
        times = theirs["ratios"]
        restate = name == "restate"
        found += [
            Line(
                f"{name} {theirs['version']}: steps/s, ours ÷ theirs",
                f"{times['throughput']:.1f} × {theirs['throughput_steps_s']:,.0f}",
                f"≥ {FASTER_THAN_RESTATE:g}" if restate else "",
                times["throughput"] >= FASTER_THAN_RESTATE if restate else None,
            ),
            Line(
                f"{name}: one step p50, theirs ÷ ours",
                f"{theirs['step_p50_ms']:.2f} ms ÷ {times['step_p50']:.1f}",
                "> 1" if restate else "",
                times["step_p50"] > 1 if restate else None,
            ),
            Line(
                f"{name}: one step p99, theirs ÷ ours",
                f"{theirs['step_p99_ms']:.2f} ms ÷ {times['step_p99']:.1f}",
                "> 1" if restate else "",
                times["step_p99"] > 1 if restate else None,
            ),
        ]
    return found
