"""The clock: what is made of silence, and of steps that outlive their timeout."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from permaflow.task import Done, TaskType
from pipeline import clock, runner
from pipeline.bus.subjects import done_channel, step_channel
from pipeline.clock import has_doubled
from pipeline.store import leases, runs
from tests.fix_engine import Engine, Script, graph, task


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


async def test_a_step_that_got_lost_does_not_wait_for_the_long_one_beside_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LEASE_AFTER", 0.1)
    held, begun, enough = asyncio.Event(), asyncio.Event(), asyncio.Event()
    renew, send = leases.renew, engine.bus.send

    async def renewed(*args: Any, **kwargs: Any) -> set[tuple[UUID, str]]:
        taken = await renew(*args, **kwargs)
        held.set()
        return taken

    def lossy(subject: str, data: bytes, key: str | None = None) -> asyncio.Future[None]:
        if held.is_set() or not subject.startswith("pf.step.record"):
            return send(subject, data, key)
        receipt = asyncio.get_running_loop().create_future()
        receipt.set_result(None)
        return receipt

    async def long(_config: Script, _ctx: Any) -> Done:
        await enough.wait()
        return Done()

    async def short(_config: Script, _ctx: Any) -> Done:
        begun.set()
        return Done()

    monkeypatch.setattr(leases, "renew", renewed)
    monkeypatch.setattr(engine.bus, "send", lossy)
    engine.types.add(TaskType("test_long", "code", Script, Script, long))
    engine.types.add(TaskType("test_short", "record", Script, Script, short))
    nodes = [{"id": kind, "type": f"test_{kind}", "config": {}} for kind in ("long", "short")]
    document = graph(*nodes, edges=["t>long", "t>short"])
    (run_id,) = await engine.start(await engine.workflow(document))
    async with asyncio.timeout(15):
        await begun.wait()
    enough.set()
    assert (await engine.until(run_id)).status == "completed"


async def test_ends_are_not_told_again_and_again_while_completion_is_behind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "FLOOD", 2)
    await engine.bus.pause(done_channel(), timedelta(minutes=5))
    await engine.finished(graph(task("a"), edges=["t>a"]))
    looked = asyncio.Event()
    looks = 0
    glance = runs.glance

    async def counted(*args: Any, **kwargs: Any) -> runs.Glance:
        nonlocal looks
        found = await glance(*args, **kwargs)
        looks += found.unsettled
        if looks == 8:
            looked.set()
        return found

    monkeypatch.setattr(runs, "glance", counted)
    async with asyncio.timeout(30):
        await looked.wait()
    assert (await engine.bus.backlog(done_channel())).pending == 3
    await engine.bus.pause(done_channel(), None)


@pytest.mark.parametrize("pause", [5.0, 7.3, 61.0, 500.0])
def test_no_doubling_is_missed_however_seldom_one_looks(pause: float) -> None:
    looks = [pause * n for n in range(1, math.ceil(20_000 / pause))]
    nudged = [silence for silence in looks if has_doubled(silence, pause, 60.0)]
    assert all(after / before < 3 * max(1, pause / 60) for before, after in pairwise(nudged))
    assert nudged[0] < 60 + pause


def test_a_clock_that_has_just_begun_nudges_what_has_been_silent_for_long() -> None:
    assert has_doubled(100.0, math.inf, 60.0)
    assert not has_doubled(59.0, math.inf, 60.0)


async def test_a_clock_stops_even_where_a_cancellation_is_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, lost = asyncio.Event(), asyncio.Event()

    async def lose_one() -> float:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if lost.is_set():
                raise
            lost.set()
        return 0.0

    another = clock.Clock(engine.bus, engine.database, engine.settings)
    monkeypatch.setattr(another, "_reconcile", lose_one)
    running = asyncio.create_task(another.run())
    await asyncio.wait_for(begun.wait(), 5)
    await another.stop()
    await asyncio.wait_for(running, 5)
    assert lost.is_set()
