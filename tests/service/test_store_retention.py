"""Partitions: there in time, dropped when nothing in them is needed any more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import StoreError
from pipeline.store import dead_letters, payloads, retention, runs, stats
from pipeline.store.database import Connection, Database
from pipeline.store.dead_letters import Unreadable
from pipeline.store.payloads import Payload
from pipeline.store.starts import StartRequest, start_runs
from tests.fix_store import append, execute, finish

pytestmark = pytest.mark.service


def id_of(moment: datetime) -> UUID:
    """A UUIDv7 of that moment."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (uuid7().int & ((1 << 80) - 1)))


def months_ago(count: int) -> datetime:
    """The middle of a month."""
    today = datetime.now(UTC)
    months = today.year * 12 + today.month - 1 - count
    return datetime(months // 12, months % 12 + 1, 15, tzinfo=UTC)


def name_of(moment: datetime) -> str:
    return moment.strftime("%Y%m")


async def partition_of(store: Database, run_id: UUID) -> str:
    [(name,)] = await execute(
        store, "select tableoid::regclass::text from permaflow.run where id = %s", (run_id,)
    )
    return str(name).removeprefix("permaflow.")


async def run_of(store: Database, org: UUID, workflow: UUID, moment: datetime) -> UUID:
    request = StartRequest(id_of(moment), org, workflow, "api")
    await store.run(start_runs, [request])
    await append(store, org, request.run_id, 1)
    await store.run(payloads.put, [Payload(id_of(moment), org, b"x", request.run_id)])
    return request.run_id


async def make_months(store: Database, start: datetime) -> None:
    await execute(store, "select permaflow.make_partitions(%s, 8)", (start,))


async def test_partitions_of_the_coming_months_are_there(store: Database) -> None:
    assert await retention.make_partitions(store) == 0
    assert await retention.make_partitions(store, 6) == 9
    coming = await execute(
        store, "select to_regclass('permaflow.run_' || %s)", (name_of(months_ago(-5)),)
    )
    assert coming != [(None,)]


async def test_many_clocks_make_the_same_partitions_at_once(store: Database) -> None:
    made = await asyncio.gather(
        *(retention.make_partitions(store, 8) for _ in range(4)), return_exceptions=True
    )
    assert await retention.make_partitions(store, 8) == 0
    assert [each for each in made if isinstance(each, BaseException)] == []


async def test_a_new_partition_is_guarded_like_the_first(store: Database) -> None:
    await retention.make_partitions(store, 6)
    unguarded = await execute(
        store,
        "select relname from pg_class where relnamespace = 'permaflow'::regnamespace"
        " and relispartition and relkind = 'r' and not (relrowsecurity and relforcerowsecurity)",
    )
    assert unguarded == []


async def test_a_run_of_a_month_without_partition_moves_when_it_is_made(
    store: Database, org: UUID, workflow: UUID
) -> None:
    run_id = await run_of(store, org, workflow, months_ago(6))
    assert await partition_of(store, run_id) == "run_default"
    await make_months(store, months_ago(6))
    assert await partition_of(store, run_id) == f"run_{name_of(months_ago(6))}"
    assert len(await store.run(runs.journal, org, run_id)) == 1


async def test_months_are_dropped_up_to_the_first_with_an_open_run(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await make_months(store, months_ago(6))
    made = [await run_of(store, org, workflow, months_ago(count)) for count in (6, 5, 4)]
    for run_id in (made[0], made[2]):
        await finish(store, run_id)
    await store.run(stats.settle, made)
    dropped = await retention.drop_old_months(store, 60)
    assert dropped == [name_of(months_ago(6))]
    assert {run.id for run in await store.run(runs.find, org)} == set(made[1:])
    assert await execute(store, "select count(*) from permaflow.journal") == [(2,)]
    assert await execute(store, "select count(*) from permaflow.payload") == [(2,)]
    await finish(store, made[1])
    await store.run(stats.settle, made)
    dropped = await retention.drop_old_months(store, 60)
    assert dropped[:2] == [name_of(months_ago(5)), name_of(months_ago(4))]
    assert await store.run(runs.find, org) == []


async def test_a_run_that_is_not_counted_yet_keeps_its_month(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await make_months(store, months_ago(6))
    run_id = await run_of(store, org, workflow, months_ago(6))
    await finish(store, run_id)
    assert await retention.drop_old_months(store, 60) == []
    await store.run(stats.settle, [run_id])
    assert name_of(months_ago(6)) in await retention.drop_old_months(store, 60)
    assert (await store.run(stats.of, org, [workflow]))[workflow].run_count == 1


async def test_a_month_that_is_young_enough_stays(store: Database) -> None:
    await make_months(store, months_ago(6))
    for month in await retention.drop_old_months(store, 100):
        assert month < name_of(datetime.now(UTC) - timedelta(days=100))


async def test_a_reader_delays_a_drop_only_until_it_gives_up(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await make_months(store, months_ago(6))

    async def read(connection: Connection) -> None:
        await connection.execute("select count(*) from permaflow.run")
        with pytest.raises(StoreError, match="lock timeout"):
            async with store.transaction() as other:
                await other.execute("select permaflow.drop_oldest_month('2999-01-01')")

    await store.run(read)
    assert await retention.drop_old_months(store, 60)


async def test_identities_are_forgotten_after_their_time_in_batches(
    store: Database, org: UUID, workflow: UUID
) -> None:
    requests = [
        StartRequest(uuid7(), org, workflow, "api", bytes([number]) * 32) for number in range(7)
    ]
    await store.run(start_runs, requests)
    await execute(
        store,
        "update permaflow.run_key set created_at = created_at - interval '11 days' where key <> %s",
        (bytes([0]) * 32,),
    )
    assert await retention.prune_keys(store, 12) == 0
    assert await retention.prune_keys(store, 10, batch=2) == 6
    assert await execute(store, "select run_id from permaflow.run_key") == [(requests[0].run_id,)]


async def test_old_dead_letters_are_removed(store: Database) -> None:
    [kept] = await store.run(dead_letters.add, [Unreadable("kafka", "1", "r", b"")])
    await execute(
        store,
        "insert into permaflow.dead_letter (id, source, position, reason, raw)"
        " values (%s, 's', 'p', 'r', '')",
        (id_of(months_ago(6)),),
    )
    assert await retention.prune_dead_letters(store, 60) == 1
    assert [letter.id for letter in await store.run(dead_letters.find)] == [kept]
