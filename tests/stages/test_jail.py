"""The pool of cells: who gets which, how long they live, and what becomes of those that fall."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from permaflow.errors import (
    JailBreachError,
    JailError,
    NotFoundError,
    SettingsError,
    SnippetError,
    SnippetTimeoutError,
)
from pipeline import jailed
from pipeline.settings import load_settings
from stages.jail import engines
from stages.jail.cell import Job
from stages.jail.confine import LAYERS
from stages.jail.engines import QUICKJS, Engine
from stages.jail.pool import Pool, PoolLimits, Watch
from stages.jail.turns import Turns
from tests.stages.hostile import HOSTILE

MEMORY = 64 << 20


def job(code: str, seconds: float = 5.0, lines: list[str] | None = None) -> Job:
    log = lines.append if lines is not None else lambda line: None
    return Job(code.encode(), b"null", seconds, MEMORY, 1_000_000, log)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(PoolLimits(processes=2, jobs=3, idle=60)) as made:
        yield made


async def used(pool: Pool, org: str = "acme") -> int:
    """The process that does a job of the organisation."""
    running = asyncio.create_task(pool.run(org, QUICKJS, job("return 1")))
    pids = set[int]()
    while not running.done():
        pids |= pool.busy
        await asyncio.sleep(0)
    assert await running == b"1"
    (pid,) = pids
    return pid


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - a process tells nobody that it is gone
            await asyncio.sleep(0.005)


async def gone(pid: int) -> None:
    """Returns once there is no such process."""
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_all_layers_are_there_or_the_missing_are_told_with_a_reason() -> None:
    told: list[tuple[Sequence[str], dict[str, str]]] = []
    watch = Watch(ready=lambda layers, missing: told.append((layers, dict(missing))))
    async with Pool(PoolLimits(), watch) as pool:
        await pool.warm()
        await used(pool)
    ((layers, missing),) = told
    assert {*layers, *missing} == set(LAYERS)
    assert "limits" in layers
    assert all(missing.values())


async def test_a_layer_that_is_demanded_and_missing_keeps_all_code_from_running() -> None:
    limits = PoolLimits(require=["limits", "seccomp"])
    async with Pool(limits, without=["seccomp"]) as pool:
        with pytest.raises(JailError, match="lacks seccomp"):
            await pool.warm()
        with pytest.raises(JailError, match="PERMAFLOW_JAIL_REQUIRE"):
            await pool.run("acme", QUICKJS, job("return 1"))
        assert not pool.pids


async def test_a_layer_that_does_not_exist_cannot_be_demanded() -> None:
    with pytest.raises(SettingsError, match="no layer moat"):
        Pool(PoolLimits(require=["moat"]))


async def test_an_organisation_keeps_its_process(pool: Pool) -> None:
    assert await used(pool) == await used(pool)


async def test_two_organisations_never_share_a_process(pool: Pool) -> None:
    first = await used(pool, "acme")
    second = await used(pool, "rival")
    assert first != second
    assert await used(pool, "acme") == first
    assert await used(pool, "rival") == second


async def test_a_process_that_did_its_number_of_jobs_goes(pool: Pool) -> None:
    pid = await used(pool)
    assert [await used(pool), await used(pool)] == [pid, pid]
    await gone(pid)
    assert await used(pool) != pid


async def test_a_process_without_work_goes() -> None:
    async with Pool(PoolLimits(idle=0.05)) as pool:
        await gone(await used(pool))


async def test_a_process_that_hit_a_limit_goes(pool: Pool) -> None:
    pid = await used(pool)
    with pytest.raises(SnippetTimeoutError):
        await pool.run("acme", QUICKJS, job("while (true);", 0.1))
    await gone(pid)


async def test_the_next_process_waits_ready_before_it_is_needed(pool: Pool) -> None:
    await used(pool)
    await until(lambda: len(pool.pids) == 2)
    (spare,) = set(pool.pids) - {await used(pool)}
    assert await used(pool, "rival") == spare


async def test_a_process_that_is_killed_at_work_is_replaced_and_the_work_done(pool: Pool) -> None:
    lines: list[str] = []
    code = "console.log('on'); const end = Date.now() + 300; while (Date.now() < end); return 7"
    running = asyncio.create_task(pool.run("acme", QUICKJS, job(code, lines=lines)))
    await until(lambda: lines)
    (pid,) = pool.busy
    os.kill(pid, signal.SIGKILL)
    assert await running == b"7"
    assert lines == ["on", "on"]
    await gone(pid)


async def test_a_process_that_is_killed_while_it_waits_is_not_used(pool: Pool) -> None:
    pid = await used(pool)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    assert await used(pool) != pid


async def test_who_gives_up_takes_the_process_along(pool: Pool) -> None:
    running = asyncio.create_task(pool.run("acme", QUICKJS, job("while (true);", 60)))
    await until(lambda: pool.busy)
    (pid,) = pool.busy
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(pid)


async def test_no_process_is_left_when_the_pool_closes() -> None:
    async with Pool(PoolLimits()) as pool:
        await used(pool)
        await used(pool, "rival")
        await pool.warm()
        pids = set(pool.pids)
        assert len(pids) >= 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_process_does_not_outlive_the_runner() -> None:
    script = (
        "import asyncio\n"
        "from stages.jail.pool import Pool, PoolLimits\n"
        "async def main():\n"
        "    pool = Pool(PoolLimits())\n"
        "    print((await pool.warm()).pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdout is not None
    pid = int(await asyncio.wait_for(runner.stdout.readline(), 10))
    runner.kill()
    await runner.wait()
    await gone(pid)


async def test_an_engine_that_is_not_installed_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = Engine("absent", "stages.jail.absent", "no_such_module", "permaflow[absent]")
    monkeypatch.setitem(engines.ENGINES, "absent", absent)
    async with Pool(PoolLimits()) as pool:
        with pytest.raises(NotFoundError, match=r"pip install 'permaflow\[absent\]'"):
            await pool.run("acme", engines.engine("absent"), job("1"))


async def test_turns_go_round_by_organisation() -> None:
    turns = Turns(3)
    order: list[str] = []

    async def work(org: str) -> None:
        await turns.take(org)
        order.append(org)
        turns.give_back(org)

    for org in ("acme", "acme", "rival"):
        await turns.take(org)
    waiting = [asyncio.create_task(work(org)) for org in ("acme", "acme", "acme", "rival")]
    await asyncio.sleep(0)
    assert order == []
    turns.give_back("acme")
    await asyncio.gather(*waiting)
    assert order == ["acme", "rival", "acme", "acme"]


async def test_whoever_has_no_turn_gets_one_when_others_hold_them_all() -> None:
    turns = Turns(2)
    for org in ("acme", "acme", "rival", "third"):
        await asyncio.wait_for(turns.take(org), 5)
    again = asyncio.create_task(turns.take("rival"))
    fourth = asyncio.create_task(turns.take("fourth"))
    await asyncio.sleep(0)
    assert not again.done()
    assert not fourth.done(), "twice the size is the most"
    turns.give_back("acme")
    await asyncio.wait_for(fourth, 5)
    assert not again.done()
    again.cancel()


async def test_a_turn_that_nobody_waits_for_any_longer_goes_to_the_next() -> None:
    turns = Turns(1)
    await turns.take("acme")
    first = asyncio.create_task(turns.take("acme"))
    second = asyncio.create_task(turns.take("acme"))
    third = asyncio.create_task(turns.take("acme"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    turns.give_back("acme")
    second.cancel()
    await asyncio.wait_for(third, 5)
    for gone in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await gone


async def test_an_engine_that_was_taken_over_is_told_of() -> None:
    told: list[tuple[str, str]] = []
    watch = Watch(breached=lambda org, error: told.append((org, error.code)))
    async with Pool(PoolLimits(), watch) as pool:
        with pytest.raises(JailBreachError):
            await pool.run("acme", HOSTILE, job("os.fork()"))
        with pytest.raises(JailBreachError):
            await pool.run("acme", HOSTILE, job("os.write(1, b'?' * 100)"))
        with pytest.raises(SnippetError):
            await pool.run("acme", HOSTILE, job("1 / 0"))
    assert told == [("acme", "jail_breach")] * 2


async def test_a_runner_whose_settings_demand_what_is_missing_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jailed, "Pool", partial(Pool, without=["landlock"]))
    settings = load_settings(jail_require="all")
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match="lacks landlock, which PERMAFLOW_JAIL_REQUIRE"):
            await jailed.open_snippets(settings, stack, warm=True)


async def test_a_jail_that_is_as_the_settings_demand_is_ready() -> None:
    async with AsyncExitStack() as stack:
        settings = load_settings(jail_require="limits")
        snippets = await jailed.open_snippets(settings, stack, warm=True)
        told = snippets("acme").run(
            "quickjs", "return 1", None, timeout=timedelta(5), memory=MEMORY, log=print
        )
        assert await told == 1
