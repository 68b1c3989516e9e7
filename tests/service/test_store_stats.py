"""Counters: right at any moment, and each run counted once."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from pipeline.store import stats
from pipeline.store.database import Connection, Database
from pipeline.store.stats import WorkflowStats
from tests.fix_store import active_workflow, execute, finish, start

pytestmark = pytest.mark.service


async def of(store: Database, org: UUID, workflow: UUID) -> WorkflowStats:
    return (await store.run(stats.of, org, [workflow]))[workflow]


def add_up(found: WorkflowStats) -> bool:
    return found.run_count == found.success_count + found.failure_count + found.open_count


async def test_counts_are_right_before_and_after_they_are_settled(
    store: Database, org: UUID, workflow: UUID
) -> None:
    ended = [await start(store, org, workflow) for _ in range(4)]
    await start(store, org, workflow)
    for run_id, status in zip(
        ended, ("completed", "completed", "failed", "cancelled"), strict=True
    ):
        await finish(store, run_id, status)
    before = await of(store, org, workflow)
    settled = await store.run(stats.settle, await store.run(stats.unsettled))
    after = await of(store, org, workflow)
    assert sorted(settled) == ended
    assert (before.run_count, before.success_count, before.failure_count) == (5, 2, 2)
    assert after == before
    assert await execute(
        store, "select run_count, success_count, failure_count from permaflow.workflow_stats"
    ) == [(4, 2, 2)]


async def test_a_run_is_settled_once_however_many_try_at_once(
    store: Database, org: UUID, workflow: UUID
) -> None:
    ended = [await start(store, org, workflow) for _ in range(30)]
    for run_id in ended:
        await finish(store, run_id)
    answers = await asyncio.gather(*(store.run(stats.settle, ended) for _ in range(8)))
    counted = [run_id for answer in answers for run_id in answer]
    assert sorted(counted) == ended
    assert await store.run(stats.unsettled) == []
    assert (await of(store, org, workflow)).success_count == 30


async def test_an_open_run_is_not_settled(store: Database, org: UUID, workflow: UUID) -> None:
    run_id = await start(store, org, workflow)
    assert await store.run(stats.settle, [run_id]) == []
    assert await store.run(stats.unsettled) == []
    await finish(store, run_id)
    assert await store.run(stats.unsettled) == [run_id]


async def test_a_rollback_takes_the_count_back(store: Database, org: UUID, workflow: UUID) -> None:
    run_id = await start(store, org, workflow)
    await finish(store, run_id)

    async def work(connection: Connection) -> None:
        await stats.settle(connection, [run_id])
        raise ValueError("the notice could not be written")

    with pytest.raises(ValueError, match="notice"):
        await store.run(work)
    assert await store.run(stats.settle, [run_id]) == [run_id]
    assert (await of(store, org, workflow)).run_count == 1


async def test_counts_add_up_while_runs_start_end_and_are_settled(
    store: Database, org: UUID, workflow: UUID
) -> None:
    async def live() -> None:
        for _ in range(10):
            await finish(store, await start(store, org, workflow))
            await store.run(stats.settle, await store.run(stats.unsettled))

    async def watch() -> None:
        for _ in range(30):
            assert add_up(await of(store, org, workflow))

    await asyncio.gather(live(), live(), live(), watch())
    assert (await of(store, org, workflow)).success_count == 30


async def test_workflows_are_counted_apart(store: Database, org: UUID, workflow: UUID) -> None:
    other = await active_workflow(store, org)
    await finish(store, await start(store, org, workflow))
    await finish(store, await start(store, org, other), "timed_out")
    await store.run(stats.settle, await store.run(stats.unsettled))
    found = await store.run(stats.of, org, [workflow, other])
    assert (found[workflow].success_count, found[workflow].failure_count) == (1, 0)
    assert (found[other].success_count, found[other].failure_count) == (0, 1)
