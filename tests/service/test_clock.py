"""The clock: what is made of silence, and of steps that outlive their timeout."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from pipeline import clock
from pipeline.bus.subjects import step_channel
from pipeline.clock import has_doubled
from pipeline.store import runs
from tests.fix_engine import Engine, graph, task


def test_a_run_that_waits_in_a_queue_for_an_hour_is_nudged_a_few_times() -> None:
    looks = [5.0 * n for n in range(1, 721)]
    nudges = [silence for silence in looks if has_doubled(silence, 5.0, 60.0)]
    assert nudges == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0]


async def test_while_steps_wait_for_runners_silence_is_not_answered_every_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "QUEUED_PATIENCE", 2.0)
    monkeypatch.setattr(clock, "has_doubled", partial(has_doubled, first=2.0))
    channel = step_channel("code")
    await engine.bus.pause(channel, timedelta(minutes=5))
    (run_id,) = await engine.start(await engine.workflow(graph(task("a"), edges=["t>a"])))
    looked = asyncio.Event()
    looks = 0
    silent = runs.silent

    async def counted(*args: Any, **kwargs: Any) -> list[runs.SilentRun]:
        nonlocal looks
        found = await silent(*args, **kwargs)
        looks += bool(found)
        if looks == 7:
            looked.set()
        return found

    monkeypatch.setattr(runs, "silent", counted)
    async with asyncio.timeout(30):
        await looked.wait()
    assert (await engine.bus.backlog(channel)).pending <= 4
    await engine.bus.pause(channel, None)
    assert (await engine.until(run_id)).status == "completed"


@pytest.mark.parametrize("pause", [5.0, 7.3, 61.0, 500.0])
def test_no_doubling_is_missed_however_seldom_one_looks(pause: float) -> None:
    looks = [pause * n for n in range(1, math.ceil(20_000 / pause))]
    nudged = [silence for silence in looks if has_doubled(silence, pause, 60.0)]
    assert all(after / before < 3 * max(1, pause / 60) for before, after in pairwise(nudged))
    assert nudged[0] < 60 + pause


def test_a_clock_that_has_just_begun_nudges_what_has_been_silent_for_long() -> None:
    assert has_doubled(100.0, math.inf, 60.0)
    assert not has_doubled(59.0, math.inf, 60.0)
