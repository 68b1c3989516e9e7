"""What bombs do to the steps beside them: nothing that anybody would notice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from pydantic import BaseModel

from permaflow.errors import PermaflowError
from permaflow.plan import Json
from permaflow.task import Done, TaskContext, TaskType
from pipeline.attempt import Services, attempt
from pipeline.wire import Dispatch, StepDone
from stages.jail.cell import Job
from stages.jail.engines import QUICKJS
from stages.jail.pool import Pool, PoolLimits
from stages.jail.snippets import JailedSnippets
from stages.snippet import task_type as code_snippet
from tests.core.no_services import services_for_nothing

MEMORY = 32 << 20
PLACES = 4
BOMBS = (
    "while (true);",
    "while (true) await 0;",
    "const a = []; while (true) a.push({a: [1]});",
    "while (true) console.log('x');",
)
SECONDS = 0.5
STEPS = 150
ENOUGH = 20.0
"""So many steps are measured, or fewer when they take so many seconds."""

TRIES = 4
"""Rounds, of which one has to be good: each is a fraction of a second of a machine that does other
things too. What keeps the others waiting does so in every round.
"""

P50_MORE, P99_MORE = 0.010, 0.060
"""Seconds by which steps may take longer beside bombs, beyond twice the time that they take alone.

There are more bombs than processors, and whoever wakes up waits for some slices of time. Code that
waits for a place until a bomb has gone off takes `SECONDS`, or a good part of it.
"""


class Nothing(BaseModel):
    """No config."""


async def _turn(_config: Nothing, _ctx: TaskContext) -> Done:
    """A step that needs the runner's loop and nothing else."""
    await asyncio.sleep(0)
    return Done(2)


PLAIN = TaskType("plain", "here", Nothing, Nothing, _turn)
CODE = {"code": "return input + 1", "input": 1, "memory_mb": 32}


@dataclass(frozen=True, slots=True)
class Took:
    """The median, and what one in a hundred exceeds; seconds."""

    p50: float
    p99: float

    def keeps_up_with(self, alone: Took) -> bool:
        return self.p50 <= 2 * alone.p50 + P50_MORE and self.p99 <= 2 * alone.p99 + P99_MORE


def spread(took: list[float]) -> Took:
    ordered = sorted(took)
    return Took(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)])


async def measured(services: Services) -> dict[str, Took]:
    """Code of another organisation, and a step that is no code, one after the other."""
    kinds: tuple[tuple[TaskType, Json], ...] = ((code_snippet, CODE), (PLAIN, {}))
    took: dict[str, list[float]] = {kind.name: [] for kind, _ in kinds}
    until = time.perf_counter() + ENOUGH
    for number in range(STEPS):
        if number >= STEPS // 10 and time.perf_counter() > until:
            break
        for kind, config in kinds:
            dispatch = Dispatch(uuid4(), "", "step", 1, kind.name, config, timeout=30.0)
            began = time.perf_counter()
            result = await attempt(dispatch, config, "rival", kind, services)
            took[kind.name].append(time.perf_counter() - began)
            assert isinstance(result, StepDone)
            assert result.output == 2
    return {name: spread(each) for name, each in took.items()}


@asynccontextmanager
async def bombs_of(pool: Pool, org: str) -> AsyncIterator[list[float]]:
    """As many bombs as there are places, and always more that wait; gives when each began."""
    began: list[float] = []
    job = Job(b"", b"null", SECONDS, MEMORY, 1_000_000, lambda line: None)

    async def explode(codes: itertools.cycle[str]) -> None:
        for code in codes:
            began.append(time.perf_counter())
            with contextlib.suppress(PermaflowError):
                await pool.run(org, QUICKJS, replace(job, code=code.encode()))

    todo = itertools.cycle(BOMBS)
    exploding = [asyncio.create_task(explode(todo)) for _ in range(2 * PLACES)]
    try:
        async with asyncio.timeout(20):
            while len(pool.busy) < PLACES:  # noqa: ASYNC110 - the pool tells nobody
                await asyncio.sleep(0.005)
        yield began
    finally:
        for task in exploding:
            task.cancel()
        await asyncio.gather(*exploding, return_exceptions=True)


async def test_steps_of_others_take_as_long_beside_bombs_as_without_them() -> None:
    async with Pool(PoolLimits(processes=PLACES, jobs=10_000)) as pool:
        services = replace(
            services_for_nothing(),
            snippets=lambda org: JailedSnippets(pool, org, output=1_000_000, memory=MEMORY),
        )
        await measured(services)  # the process of the organisation is there
        rounds = []
        for _ in range(TRIES):
            alone = await measured(services)
            async with bombs_of(pool, "acme") as began:
                beside = await measured(services)
                assert len(pool.busy) >= 1, "the bombs were at work"
            assert len(began) > PLACES
            rounds.append((alone, beside))
            if all(beside[name].keeps_up_with(alone[name]) for name in alone):
                return
    raise AssertionError(f"in no round: {rounds}")
