"""Code steps: through a runner, and through its jail, one after another and several at a time.

One process and the cells that it starts, no servers. A step in the runner is the runner itself,
from the bytes of a dispatch to those of the result. Code that does nothing shows what the jail
costs; the first piece of an organisation shows what its own process costs when a warm one waits,
and when none does.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.desk import Desk
from bench.report import Line
from bench.stand import BenchError
from bench.usage import resident_bytes
from permaflow.plan import Json
from pipeline import builtins
from pipeline.ids import new_id
from pipeline.runner import Runner
from pipeline.runner_services import open_services, runner_store
from pipeline.settings import load_settings
from pipeline.store.database import Database
from pipeline.wire import Dispatch, Dispatches, Inbox, StepDone, decode_inbox, encode
from stages.jail.pool import Pool, PoolLimits
from stages.jail.snippets import JailedSnippets

SIZES = {"quick": (200, 10), "full": (5_000, 100), "long": (50_000, 500)}
"""Pieces of trivial code, and of organisations that come for the first time."""

TARGET_MS = 2.0
AT_ONCE = 16
MEGABYTE = 1 << 20
TRIVIAL = "return input.a + input.b"
GIVEN: Json = {"a": 1, "b": 2}
WORK = """
const lines = [];
for (let i = 0; i < 1000; i++) lines.push({sku: 's' + i, price: i % 97, count: i % 7});
const total = lines.filter((l) => l.count > 0).reduce((sum, l) => sum + l.price * l.count, 0);
return {total, top: lines.sort((a, b) => b.price - a.price).slice(0, 10)};
"""


async def bench(scale: str) -> dict[str, Any]:
    many, orgs = SIZES[scale]
    async with Pool(PoolLimits()) as pool:
        cell = await pool.warm()
        layers = cell.layers
        await _one(pool, "acme", TRIVIAL)
        trivial = [await _one(pool, "acme", TRIVIAL) for _ in range(many)]
        work = [await _one(pool, "acme", WORK) for _ in range(many // 5)]
        began = time.perf_counter()
        turns = iter(range(many))
        await asyncio.gather(*(_some(pool, turns) for _ in range(AT_ONCE)))
        rate = many / (time.perf_counter() - began)
        resident = [resident_bytes(_inner(pid)) / 1e6 for pid in pool.pids]
        warm = []
        for number in range(orgs):
            await pool.warm()
            warm.append(await _one(pool, f"new {number}", TRIVIAL))
    async with Pool(PoolLimits()) as pool:
        cold = await _one(pool, "acme", TRIVIAL)
    return {
        "layers": list(layers),
        "step_ms": _spread(await in_the_runner(many)),
        "trivial_ms": _spread(trivial),
        "work_ms": _spread(work),
        "per_second": round(rate),
        "first_ms": {"warm": _spread(warm), "cold": round(cold, 2)},
        "cell_mb": round(statistics.median(resident), 1),
    }


async def in_the_runner(many: int) -> list[float]:
    """Milliseconds of trivial steps in a runner, one after another. The first, which meets a cold
    process, does not count.
    """
    settings = load_settings(sources="", integrations="", smtp_url="", jail_require="")
    database, desk, org = Database(""), Desk(), str(new_id())
    took = []
    async with AsyncExitStack() as stack:
        services = await open_services(settings, database, stack, ["code"])
        runner = Runner(
            desk.bus,
            builtins.task_types(settings),
            services,
            runner_store(database),
            settings,
            ["code"],
            lambda _vertex, _subject, _data: None,
        )
        running = asyncio.create_task(runner.run())
        try:
            for number in range(many + 1):
                config = {"code": TRIVIAL, "input": GIVEN}
                dispatch = Dispatch(new_id(), "", "step", 1, "code_snippet", config, timeout=30.0)
                data = encode(Dispatches(org, [dispatch]))
                began = time.perf_counter()
                answer = await desk.ask(data)
                if number:
                    took.append((time.perf_counter() - began) * 1e3)
                _check(answer)
        finally:
            await runner.stop()
            await running
    return took


def _check(answer: bytes) -> None:
    match decode_inbox(answer):
        case Inbox(events=[StepDone(output=3)]):
            return
        case other:
            raise BenchError(f"A step of trivial code came back as {other!r}.")


async def _one(pool: Pool, org: str, code: str) -> float:
    """Milliseconds from the runner and back."""
    snippets = JailedSnippets(pool, org, output=MEGABYTE, memory=64 * MEGABYTE)
    began = time.perf_counter()
    await snippets.run(
        "quickjs",
        code,
        GIVEN,
        timeout=timedelta(seconds=10),
        memory=64 * MEGABYTE,
        log=lambda line: None,
    )
    return (time.perf_counter() - began) * 1e3


async def _some(pool: Pool, turns: Iterator[int]) -> None:
    for _ in turns:
        await _one(pool, "acme", TRIVIAL)


def _inner(pid: int) -> int:
    """A cell is two processes: the outer one only waits, and shares nearly all of its memory."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int((children.read_text().split() or [pid])[0]) if children.exists() else pid


def _spread(found: list[float]) -> dict[str, float]:
    ordered = sorted(found)
    return {
        "p50": round(ordered[len(ordered) // 2], 2),
        "p99": round(ordered[int(len(ordered) * 0.99)], 2),
        "max": round(ordered[-1], 2),
    }


def lines(result: dict[str, Any]) -> list[Line]:
    trivial, work, first = result["trivial_ms"], result["work_ms"], result["first_ms"]
    step = result["step_ms"]
    return [
        Line(
            "a step of trivial code in the runner, p50",
            f"{step['p50']:.2f} ms (p99 {step['p99']:.2f} ms)",
            f"≤ {TARGET_MS:g} ms",
            step["p50"] <= TARGET_MS,
        ),
        Line(
            "trivial code in the jail, p50",
            f"{trivial['p50']:.2f} ms (p99 {trivial['p99']:.2f} ms)",
        ),
        Line("code over 1,000 objects, p50", f"{work['p50']:.2f} ms (p99 {work['p99']:.2f} ms)"),
        Line("trivial code, several at a time", f"{result['per_second']:,}/s"),
        Line(
            "the first code of an organisation",
            f"{first['warm']['p50']:.2f} ms, {first['cold']:.0f} ms when no process waits",
        ),
        Line("a process of the jail", f"{result['cell_mb']:.0f} MB"),
        Line("layers of the jail", ", ".join(result["layers"])),
    ]
