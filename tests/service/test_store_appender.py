"""Journal rows over libpq: what one statement may meet."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import psycopg
import pytest

from permaflow.errors import ConflictError, InputError, StoreError, StoreUnavailableError
from pipeline.ids import new_id
from pipeline.store import runs
from pipeline.store.database import Database
from pipeline.store.journal import Append, Journal
from tests.fix_store import start


async def rows(url: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            "select run_id, seq, org_id, entries::text from permaflow.journal order by run_id, seq"
        )
        return await cursor.fetchall()


def append(*seqs: int, entries: str = '[["started","t"]]') -> Append:
    run, org = new_id(), new_id()
    return Append([run] * len(seqs), list(seqs), [org] * len(seqs), [entries] * len(seqs))


def rows_of(org: UUID, ids: list[UUID], seq: int = 1) -> Append:
    count = len(ids)
    return Append(list(ids), [seq] * count, [org] * count, ["[]"] * count)


@pytest.fixture
async def journal(database_url: str):
    found = Journal(lambda: psycopg.AsyncConnection.connect(database_url, autocommit=True))
    yield found
    await found.close()


async def test_rows_are_stored_as_they_were_given(journal: Journal, database_url: str) -> None:
    batch = append(1, 2, entries='[["succeeded","","ä",1,{"x":"\\u2028"},null,null]]')
    await journal.commit(batch)
    assert await rows(database_url) == [
        (batch.runs[0], seq, batch.orgs[0], batch.entries[0]) for seq in (1, 2)
    ]


async def test_a_taken_place_is_a_conflict_and_nothing_of_the_batch_is_stored(
    journal: Journal, database_url: str
) -> None:
    first = append(1)
    await journal.commit(first)
    second = append(1)
    second.runs.append(first.runs[0])
    second.seqs.append(1)
    second.orgs.append(first.orgs[0])
    second.entries.append("[]")
    with pytest.raises(ConflictError):
        await journal.commit(second)
    assert len(await rows(database_url)) == 1
    await journal.commit(append(1))
    assert len(await rows(database_url)) == 2


async def test_rows_and_the_ends_of_their_runs_are_stored_together(
    journal: Journal, store: Database, org: UUID, workflow: UUID
) -> None:
    ids = [await start(store, org, workflow) for _ in range(3)]
    batch = rows_of(org, ids)
    batch.finished = [(ids[0], "completed", None), (ids[2], "failed", '{"code": "ä"}')]
    await journal.commit(batch)
    found = [await store.run(runs.get, org, run_id) for run_id in ids]
    assert [run.status for run in found] == ["completed", "running", "failed"]
    assert [run.error for run in found] == [None, None, '{"code": "ä"}'.encode()]
    assert [run.finished_at is None for run in found] == [False, True, False]
    assert [len(await store.run(runs.journal, org, run_id)) for run_id in ids] == [1, 1, 1]


async def test_a_conflict_ends_no_run(
    journal: Journal, store: Database, org: UUID, workflow: UUID
) -> None:
    ids = [await start(store, org, workflow) for _ in range(2)]
    await journal.commit(rows_of(org, ids[:1]))
    batch = rows_of(org, ids)
    batch.finished = [(ids[1], "completed", None)]
    with pytest.raises(ConflictError):
        await journal.commit(batch)
    assert (await store.run(runs.get, org, ids[1])).status == "running"


async def test_an_end_is_written_once(
    journal: Journal, store: Database, org: UUID, workflow: UUID
) -> None:
    ids = [await start(store, org, workflow)]
    for seq, status in ((1, "cancelled"), (2, "completed")):
        batch = rows_of(org, ids, seq)
        batch.finished = [(ids[0], status, None)]
        await journal.commit(batch)
    assert (await store.run(runs.get, org, ids[0])).status == "cancelled"


async def test_what_is_no_json_is_refused(journal: Journal) -> None:
    with pytest.raises(InputError):
        await journal.commit(append(1, entries="{"))


async def test_after_a_lost_connection_the_next_append_works(
    journal: Journal, database_url: str
) -> None:
    await journal.commit(append(1))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        with suppress(StoreUnavailableError):  # unless the loss was noticed in time
            await journal.commit(append(1))
    batch = append(1)
    await journal.commit(batch)
    assert batch.runs[0] in {row[0] for row in await rows(database_url)}


async def test_connections_may_be_lost_again_and_again(journal: Journal, database_url: str) -> None:
    """The sockets of new connections have the numbers of those that were lost."""

    async def commit(*, alone: bool) -> bool:
        batch = append(1)
        if not alone:
            batch.statuses.append((batch.runs[0], "waiting"))
        try:
            async with asyncio.timeout(5):
                await journal.commit(batch)
        except StoreUnavailableError:
            return False
        return True

    for _ in range(10):
        await commit(alone=True)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        await commit(alone=True)
        await commit(alone=False)
        assert await commit(alone=True)
        assert await commit(alone=False)


async def test_what_could_not_be_prepared_is_prepared_later(
    journal: Journal, database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await admin.execute("alter table permaflow.journal rename to elsewhere")
        with pytest.raises(StoreError):
            await journal.commit(append(1))
        await admin.execute("alter table permaflow.elsewhere rename to journal")
    await journal.commit(append(1))


async def test_a_large_batch_goes_through(journal: Journal, database_url: str) -> None:
    batch = append(*range(1, 2001), entries='[["x","' + "y" * 5_000 + '"]]')
    await journal.commit(batch)
    assert len(await rows(database_url)) == 2000
