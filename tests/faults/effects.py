"""A task type whose effects can be counted by somebody else: a line in a file for each.

The file is opened anew for each line and written in one call, so lines of many processes do not
mix, and a line that was written stays when its process is killed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from pydantic import BaseModel

from permaflow.task import Done, Reject, Retry, TaskContext, TaskType, Verdict

WITNESS = "PERMAFLOW_TEST_WITNESS"


class Config(BaseModel):
    """`fail` fails the first so many attempts; `seconds` is how long the work takes."""

    value: Any = None
    fail: int = 0
    reject: bool = False
    seconds: float = 0.0


class Result(BaseModel):
    """What later steps chain on."""

    chain: list[Any]


async def run(config: Config, ctx: TaskContext) -> Verdict:
    if config.seconds:
        await asyncio.sleep(config.seconds)
    _witness(ctx.idempotency_key)
    if config.reject:
        return Reject("as the workflow wants it")
    if ctx.attempt <= config.fail:
        return Retry("not yet")
    return Done({"chain": [config.value, ctx.node]})


def _witness(key: str) -> None:
    descriptor = os.open(os.environ[WITNESS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{key}\n".encode())
    finally:
        os.close(descriptor)


def effects() -> dict[str, int]:
    """Idempotency key → how often its effect happened."""
    counts: dict[str, int] = {}
    with open(os.environ[WITNESS]) as file:
        for line in file:
            key = line.strip()
            counts[key] = counts.get(key, 0) + 1
    return counts


task_type = TaskType("fault_effect", "code", Config, Result, run, batch=8)
