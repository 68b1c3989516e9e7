"""Migrations: forward, once, by one process at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from permaflow.errors import StoreError
from pipeline.store.migrate import migrate, read_migrations, status

pytestmark = pytest.mark.service

FIRST = "create table permaflow.first (id int);"
SECOND = "create table permaflow.second (id int);"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_pre_first.sql").write_text(FIRST)
    (tmp_path / "0002_post_second.sql").write_text(SECOND)
    return tmp_path


async def tables(url: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(url) as session:
        cursor = await session.execute(
            "select relname from pg_class where relnamespace = 'permaflow'::regnamespace"
            " and relkind = 'r'"
        )
        return {row[0] for row in await cursor.fetchall()}


async def test_an_empty_database_gets_the_whole_schema(empty_database_url: str) -> None:
    expected = [migration.version for migration in read_migrations()]
    assert await migrate(empty_database_url) == expected
    assert (await status(empty_database_url)).applied == tuple(expected)


async def test_a_second_time_there_is_nothing_to_do(database_url: str) -> None:
    assert await migrate(database_url) == []


async def test_many_at_once_apply_each_migration_once(
    empty_database_url: str, folder: Path
) -> None:
    done = await asyncio.gather(*(migrate(empty_database_url, folder=folder) for _ in range(5)))
    assert max(done) == ["0001_pre_first", "0002_post_second"]
    assert sum(map(len, done)) == 2


async def test_until_stops_after_the_named_one(empty_database_url: str, folder: Path) -> None:
    assert await migrate(empty_database_url, until="0001", folder=folder) == ["0001_pre_first"]
    found = await status(empty_database_url, folder=folder)
    assert (found.applied, found.pending) == (("0001_pre_first",), ("0002_post_second",))
    assert await migrate(empty_database_url, folder=folder) == ["0002_post_second"]


async def test_until_must_name_a_migration(empty_database_url: str, folder: Path) -> None:
    with pytest.raises(StoreError, match="no migration 0009; the last one is 0002_post_second"):
        await migrate(empty_database_url, until="0009", folder=folder)


async def test_approvals_of_runs_that_were_paused_before_are_held(empty_database_url: str) -> None:
    await migrate(empty_database_url, until="0013")
    async with await psycopg.AsyncConnection.connect(empty_database_url) as session:
        await session.execute("set role permaflow_engine")
        for n, paused in enumerate(["now() - interval '1 hour'", "null"]):
            values = f"'01890000-0000-7000-8000-00000000000{n}', gen_random_uuid()"
            await session.execute(
                "insert into permaflow.run (id, org_id, workflow_id, version, status, source,"
                f" paused_at) values ({values}, gen_random_uuid(), 1, 'waiting', 'api', {paused})"
            )
            await session.execute(
                "insert into permaflow.approval (run_id, org_id, id, scope, node, attempt, to_all,"
                f" terms, next_at) values ({values}, gen_random_uuid(), '', 'ask', 1, true, '{{}}',"
                " now())"
            )
    assert await migrate(empty_database_url) != []
    async with await psycopg.AsyncConnection.connect(empty_database_url) as session:
        await session.execute("set role permaflow_engine")
        cursor = await session.execute(
            "select held_at = paused_at, next_at is null from permaflow.approval"
            " join permaflow.run on run.id = run_id order by run_id"
        )
        assert await cursor.fetchall() == [(True, True), (None, False)]


async def test_status_changes_nothing(empty_database_url: str, folder: Path) -> None:
    found = await status(empty_database_url, folder=folder)
    assert found.applied == ()
    async with await psycopg.AsyncConnection.connect(empty_database_url) as session:
        cursor = await session.execute("select to_regnamespace('permaflow')")
        assert await cursor.fetchone() == (None,)


async def test_a_database_of_a_newer_version_is_refused(
    empty_database_url: str, folder: Path
) -> None:
    await migrate(empty_database_url, folder=folder)
    (folder / "0002_post_second.sql").unlink()
    with pytest.raises(StoreError, match="has migration 0002_post_second, which this version"):
        await migrate(empty_database_url, folder=folder)


async def test_a_migration_that_was_edited_after_it_was_applied_is_refused(
    empty_database_url: str, folder: Path
) -> None:
    await migrate(empty_database_url, folder=folder)
    (folder / "0001_pre_first.sql").write_text(FIRST + " -- and more")
    with pytest.raises(StoreError, match=r"0001_pre_first was applied .* with another content"):
        await migrate(empty_database_url, folder=folder)


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database_url: str, folder: Path
) -> None:
    (folder / "0002_post_second.sql").write_text(SECOND + " select 1/0;")
    with pytest.raises(StoreError, match="0002_post_second failed: division by zero"):
        await migrate(empty_database_url, folder=folder)
    assert await tables(empty_database_url) == {"first", "schema_migrations"}
    (folder / "0002_post_second.sql").write_text(SECOND)
    assert await migrate(empty_database_url, folder=folder) == ["0002_post_second"]


async def test_an_index_can_be_built_concurrently_while_another_process_waits(
    empty_database_url: str, folder: Path
) -> None:
    concurrently = "-- no transaction\ncreate index concurrently wide on permaflow.first (id);"
    (folder / "0003_post_index.sql").write_text(concurrently)
    await asyncio.wait_for(
        asyncio.gather(*(migrate(empty_database_url, folder=folder) for _ in range(3))), 20
    )
    assert (await status(empty_database_url, folder=folder)).pending == ()


@pytest.mark.parametrize("name", ["0001_pre_again", "0002_first", "second"])
def test_a_number_stands_once_and_says_when_to_apply(tmp_path: Path, name: str) -> None:
    (tmp_path / "0001_post_first.sql").write_text(FIRST)
    (tmp_path / f"{name}.sql").write_text(FIRST)
    with pytest.raises(ValueError, match=r"expected 0002_pre_… or 0002_post_…"):
        read_migrations(tmp_path)
