"""Webhooks at 1,000 a second: how long until the 202, which is sent once the run is committed.

The load comes from a process of its own by an open schedule (`webhook_load.py`), on the same
machine; every run does one step meanwhile. Afterwards each 202 must have its run, completed.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import UUID

import orjson

from bench.documents import chain
from bench.report import Line, spread
from bench.stand import BenchError, stand

SIZES = {"quick": (200, 2.0), "full": (1_000, 10.0), "long": (1_000, 60.0)}
"""Requests per second, seconds."""

CONNECTIONS = 64
TARGET = 20.0
WITHIN = 60.0


async def bench(scale: str) -> dict[str, Any]:
    rate, seconds = SIZES[scale]
    trigger = {"id": "t", "type": "trigger_webhook", "config": {"verification": "none"}}
    async with stand() as system:
        workflow = await system.workflow(chain(1, trigger, given="{{trigger.body.order.id}}"))
        path = workflow["webhooks"][0]["path"]
        meter = system.meter()
        told = await _load("127.0.0.1", system.gateway_port, path, rate, seconds, CONNECTIONS)
        used = meter.seconds()
        await system.finished(WITHIN)
        ids = [UUID(run) for run in told["runs"]]
        ((stored, completed),) = await system.query("known", ids)
    if len(set(ids)) != told["sent"] - sum(told["failed"].values()) or stored != len(ids):
        raise BenchError(f"{len(ids)} requests were accepted; {stored} of them have a run.")
    total = told["seconds"] + 1.0
    return {
        "rate": rate,
        "sent": told["sent"],
        "seconds": round(told["seconds"], 2),
        "failed": told["failed"],
        "completed": completed,
        "answer_ms": spread(told["times"]),
        "cpu": {name: round(value / total, 2) for name, value in used.items()},
    }


async def _load(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.webhook_load", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BenchError(f"The load ended with status {process.returncode}; see above.")
    told: dict[str, Any] = orjson.loads(output)
    return told


def lines(result: dict[str, Any]) -> list[Line]:
    answer = result["answer_ms"]
    failed = sum(result["failed"].values())
    return [
        Line(
            f"webhook → 202 committed at {result['rate']:,}/s, p99",
            f"{answer['p99']:.1f} ms",
            f"≤ {TARGET:g} ms",
            answer["p99"] <= TARGET,
        ),
        Line("the same, p50 and the slowest", f"{answer['p50']:.1f} ms, {answer['max']:.1f} ms"),
        Line(
            f"of {result['sent']:,}: refused or lost, without a completed run",
            f"{failed}, {result['sent'] - failed - result['completed']}",
            "0, 0",
            failed == 0 and result["completed"] == result["sent"],
        ),
    ]
