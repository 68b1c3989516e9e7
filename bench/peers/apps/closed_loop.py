"""The load: some chains in flight, each replaced as it completes, while runs and time are left."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

Call = Callable[[int], Awaitable[list[int]]]
"""Runs a chain of so many steps and returns when the body of each of them ran."""


async def _throughput(
    call: Call, runs: int, steps: int, seconds: float, in_flight: int
) -> tuple[int, float]:
    began = last = time.monotonic()
    until = began + seconds
    left, completed = runs, 0

    async def one_after_the_other() -> None:
        nonlocal left, completed, last
        while left > 0 and time.monotonic() < until:
            left -= 1
            await call(steps)
            completed += 1
            last = time.monotonic()

    await asyncio.gather(*(one_after_the_other() for _ in range(min(in_flight, runs))))
    return completed, last - began


async def _latency(call: Call, chains: int, steps: int, seconds: float) -> list[list[int]]:
    until = time.monotonic() + seconds
    starts: list[list[int]] = []
    while len(starts) < chains and time.monotonic() < until:
        starts.append(await call(steps))
    return starts


async def drive(call: Call, arguments: list[str]) -> None:
    """Measures and prints one JSON line; `arguments` are those of `Workload.arguments`."""
    runs, steps, chains, chain_steps, in_flight = (int(arguments[at]) for at in (0, 1, 3, 4, 5))
    seconds = float(arguments[2])
    await _throughput(call, 50, steps, seconds / 6, in_flight)  # warms everything up
    completed, took = await _throughput(call, runs, steps, seconds, in_flight)
    await _latency(call, 1, 20, seconds / 6)
    starts = await _latency(call, chains, chain_steps, seconds)
    result = {"completed": completed, "seconds": took, "steps": steps, "starts_ns": starts}
    sys.stdout.write(f"{json.dumps(result)}\n")
    sys.stdout.flush()
