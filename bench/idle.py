"""What the whole system costs while nothing happens: statements per second, processor time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.documents import chain
from bench.report import Line
from bench.stand import Stand, stand

SIZES = {"quick": 5.0, "full": 30.0, "long": 60.0}
"""Seconds."""

SETTLE = 2.0
TARGET = 1.0
WITHIN = 60.0
_SHOWN = 10


async def bench(scale: str) -> dict[str, Any]:
    async with stand(statements=True) as system:
        workflow = await system.workflow(chain(3))
        await system.start(workflow["id"], 20)
        await system.finished(WITHIN)
        await asyncio.sleep(SETTLE)
        return await watch(system, SIZES[scale])


async def watch(system: Stand, seconds: float) -> dict[str, Any]:
    """What PostgreSQL executes, and what every process uses, in so many seconds."""
    before = await system.value("transactions")
    await system.query("forget_statements")
    meter = system.meter()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    used = meter.seconds()
    statements = await system.query("statements")
    # Those that read these very figures are left out.
    transactions = await system.value("transactions") - before - 3
    return {
        "seconds": round(took, 1),
        "statements_per_s": round(sum(calls for _, calls in statements) / took, 3),
        "queries_per_s": round(sum(calls for text, calls in statements if _asks(text)) / took, 3),
        "transactions_per_s": round(max(0, transactions) / took, 3),
        "cpu_percent": {name: round(value / took * 100, 2) for name, value in used.items()},
        "most_frequent": [
            {"calls": calls, "statement": " ".join(text.split())[:120]}
            for text, calls in statements[:_SHOWN]
        ],
    }


def _asks(text: str) -> bool:
    """Whether a statement is a query, not the frame of a transaction."""
    return not text.lower().lstrip().startswith(("begin", "commit", "rollback", "set ", "reset"))


def lines(result: dict[str, Any]) -> list[Line]:
    used = {name: value for name, value in result["cpu_percent"].items() if name != "others"}
    used.pop("bench", None)
    most = max(used, key=lambda name: used[name])
    return [
        Line(
            "whole system idle, queries per second",
            f"{result['queries_per_s']:.2f}",
            f"< {TARGET:g}",
            result["queries_per_s"] < TARGET,
        ),
        Line("the same with BEGIN and COMMIT", f"{result['statements_per_s']:.2f}"),
        Line(
            "processor time of all processes",
            f"{sum(used.values()):.1f} % (most: {most} {used[most]:.1f} %)",
        ),
    ]
