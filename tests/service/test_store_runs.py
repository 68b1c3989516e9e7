"""Runs: lists, journals, cancellation, and what the reconciler looks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import NotFoundError
from pipeline.store import leases, runs, stats
from pipeline.store.database import Database
from pipeline.store.leases import HeldStep
from pipeline.store.runs import RunFilter
from pipeline.store.starts import StartRequest, start_runs
from tests.fix_store import active_workflow, append, execute, finish, start

pytestmark = pytest.mark.service

NO_TIME = timedelta(0)
MINUTE = timedelta(minutes=1)


def long_ago() -> UUID:
    """A UUIDv7 of ten minutes ago."""
    milliseconds = int((datetime.now(UTC) - timedelta(minutes=10)).timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (uuid7().int & ((1 << 80) - 1)))


async def old_run(store: Database, org: UUID, workflow: UUID) -> UUID:
    """A run that was started ten minutes ago."""
    request = StartRequest(long_ago(), org, workflow, "api")
    await store.run(start_runs, [request])
    await execute(
        store,
        "update permaflow.run set created_at = created_at - interval '10 minutes' where id = %s",
        (request.run_id,),
    )
    return request.run_id


async def ids(store: Database, org: UUID, wanted: RunFilter) -> set[UUID]:
    return {run.id for run in await store.run(runs.find, org, wanted)}


async def test_filters_choose_and_combine(store: Database, org: UUID, workflow: UUID) -> None:
    other = await active_workflow(store, org)
    server = {"type": "server.register", "resource_type": "server", "resource_id": "s1"}
    first = await start(store, org, workflow, requested_by="ann", **server)
    second = await start(store, org, workflow, requested_by="bob", **server)
    third = await start(store, org, other, parent_id=first)
    await finish(store, second, "failed")
    for wanted, expected in (
        (RunFilter(), {first, second, third}),
        (RunFilter(workflow_id=other), {third}),
        (RunFilter(statuses=["failed"]), {second}),
        (RunFilter(statuses=["failed", "running"]), {first, second, third}),
        (RunFilter(statuses=[]), set()),
        (RunFilter(type="server.register"), {first, second}),
        (RunFilter(resource_type="server", resource_id="s1"), {first, second}),
        (RunFilter(resource_id="s2"), set()),
        (RunFilter(requested_by="ann"), {first}),
        (RunFilter(requested_by="bob", statuses=["running"]), set()),
        (RunFilter(parent_id=first), {third}),
    ):
        assert await ids(store, org, wanted) == expected, wanted


async def test_a_span_of_time_includes_its_start_and_not_its_end(
    store: Database, org: UUID, workflow: UUID
) -> None:
    old, new = await old_run(store, org, workflow), await start(store, org, workflow)
    at = (await store.run(runs.get, org, new)).created_at
    assert await ids(store, org, RunFilter(since=at)) == {new}
    assert await ids(store, org, RunFilter(until=at)) == {old}
    assert await ids(store, org, RunFilter(since=at - MINUTE, until=at)) == set()


async def test_pages_follow_each_other_without_gaps(
    store: Database, org: UUID, workflow: UUID
) -> None:
    made = [await start(store, org, workflow) for _ in range(5)]
    first = await store.run(runs.find, org, limit=3)
    rest = await store.run(runs.find, org, limit=3, before=first[-1].id)
    assert [run.id for run in first + rest] == made[::-1]


async def test_a_run_of_others_is_not_found(
    store: Database, org: UUID, other_org: UUID, workflow: UUID
) -> None:
    run_id = await start(store, org, workflow)
    await append(store, org, run_id, 1)
    with pytest.raises(NotFoundError):
        await store.run(runs.get, other_org, run_id)
    assert await store.run(runs.journal, other_org, run_id) == []


async def test_a_journal_is_read_on_from_a_number(
    store: Database, org: UUID, workflow: UUID
) -> None:
    run_id = await start(store, org, workflow)
    for seq in (1, 2, 3):
        await append(store, org, run_id, seq, f'[{{"n":  {seq}}}]')
    rows = await store.run(runs.journal, org, run_id, after=1, limit=1)
    assert [(row.seq, row.entries) for row in rows] == [(2, b'[{"n":  2}]')]
    rows = await store.run(runs.journal, org, run_id, after=2)
    assert [row.seq for row in rows] == [3]


async def test_the_wish_to_cancel_is_kept_until_the_run_ends(
    store: Database, org: UUID, workflow: UUID
) -> None:
    run_id = await start(store, org, workflow)
    assert await store.run(runs.cancelled, NO_TIME) == []
    assert await store.run(runs.request_cancel, org, run_id, "ann")
    assert await store.run(runs.request_cancel, org, run_id, "bob")
    [wish] = await store.run(runs.cancelled, NO_TIME)
    assert (wish.id, wish.by) == (run_id, "ann")
    assert await store.run(runs.cancelled, MINUTE) == []
    await finish(store, run_id, "cancelled")
    assert await store.run(runs.cancelled, NO_TIME) == []


async def test_a_run_that_has_ended_cannot_be_cancelled(
    store: Database, org: UUID, other_org: UUID, workflow: UUID
) -> None:
    run_id = await start(store, org, workflow)
    with pytest.raises(NotFoundError):
        await store.run(runs.request_cancel, other_org, run_id, "them")
    await finish(store, run_id)
    assert not await store.run(runs.request_cancel, org, run_id, "ann")
    assert (await store.run(runs.get, org, run_id)).cancel_at is None


async def silent(store: Database, after: timedelta = MINUTE) -> list[tuple[UUID, int]]:
    return [(run.id, run.seq) for run in await store.run(runs.silent, after)]


async def test_a_running_run_without_news_is_silent(
    store: Database, org: UUID, workflow: UUID
) -> None:
    run_id = await old_run(store, org, workflow)
    assert await silent(store) == [(run_id, 0)]
    await append(store, org, run_id, 1)
    assert await silent(store) == []
    await execute(store, "update permaflow.journal set at = at - interval '5 minutes'")
    assert await silent(store) == [(run_id, 1)]


@pytest.mark.parametrize("status", ["waiting", "completed"])
async def test_a_run_that_waits_or_has_ended_is_not_silent(
    store: Database, org: UUID, workflow: UUID, status: str
) -> None:
    run_id = await old_run(store, org, workflow)
    if status == "completed":
        await finish(store, run_id)
    else:
        await execute(store, "update permaflow.run set status = %s", (status,))
    assert await silent(store) == []


@pytest.mark.parametrize("lapsed", ["until", "deadline"])
async def test_of_a_silent_run_is_told_whether_a_runner_holds_a_step(
    store: Database, org: UUID, workflow: UUID, lapsed: str
) -> None:
    run_id = await old_run(store, org, workflow)
    held = HeldStep(run_id, "step", 1, org, MINUTE)
    await store.run(leases.renew, "runner", [held], MINUTE)
    assert [run.leased for run in await store.run(runs.silent, MINUTE)] == [True]
    await execute(store, f"update permaflow.lease set {lapsed} = now() - interval '1 second'")
    assert [run.leased for run in await store.run(runs.silent, MINUTE)] == [False]


async def test_silent_runs_come_in_pages(store: Database, org: UUID, workflow: UUID) -> None:
    made = sorted([await old_run(store, org, workflow) for _ in range(3)])
    first = await store.run(runs.silent, MINUTE, limit=2)
    rest = await store.run(runs.silent, MINUTE, limit=2, above=first[-1].id)
    assert [run.id for run in first + rest] == made


async def test_runs_are_counted_by_type_and_status(
    store: Database, org: UUID, other_org: UUID, workflow: UUID
) -> None:
    for _ in range(2):
        await finish(store, await start(store, org, workflow, type="vm.create"))
    await start(store, org, workflow)
    found = await store.run(stats.by_status, org)
    assert [(each.type, each.status, each.count) for each in found] == [
        ("", "running", 1),
        ("vm.create", "completed", 2),
    ]
    assert found[0].mean_seconds is None
    assert found[1].mean_seconds is not None
    assert found[1].mean_seconds > 0
    assert await store.run(stats.by_status, other_org) == []
    assert await store.run(stats.by_status, org, until=datetime(2020, 1, 1, tzinfo=UTC)) == []
