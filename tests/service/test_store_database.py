"""The pool: what it refuses, what it tries again, and what its errors are called."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from permaflow.errors import (
    ConflictError,
    InputError,
    LimitError,
    NotFoundError,
    PermaflowError,
    SettingsError,
    StoreError,
    StoreUnavailableError,
)
from pipeline.store.database import Connection, Database
from pipeline.store.session import refusal

pytestmark = pytest.mark.service

SOUND = {
    "version": 150004,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}


async def one(connection: Connection, statement: str, *values: object) -> Any:
    row = await (await connection.execute(statement.encode(), values or None)).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("version", 140012, "PostgreSQL 14; 15 or newer is needed"),
        ("fsync", "off", "fsync = off: it forgets what it has confirmed"),
        ("full_page_writes", "off", "full_page_writes = off"),
        ("synchronous_commit", "off", "synchronous_commit = off"),
    ],
)
def test_a_server_that_may_lose_commits_or_is_too_old_is_refused(
    name: str, value: object, message: str
) -> None:
    assert refusal(SOUND) is None
    assert message in str(refusal(SOUND | {name: value}))


async def test_a_server_without_durable_commits_is_refused_when_the_pool_opens(
    database_url: str,
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        name = session.info.dbname
        await session.execute(f"alter database {name} set synchronous_commit = off".encode())
    database = Database(database_url)
    with pytest.raises(SettingsError, match="synchronous_commit = off"):
        await database.open()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1")
    with pytest.raises(StoreUnavailableError):
        await database.open(timeout=timedelta(seconds=0.5))


async def test_a_session_has_its_name_and_its_limits(database_url: str) -> None:
    limits = {
        "statement_timeout": timedelta(seconds=7),
        "idle_timeout": timedelta(milliseconds=1500),
    }
    async with Database(database_url, application_name="permaflow clock", **limits) as database:  # type: ignore[arg-type]
        assert await database.run(one, "show application_name") == "permaflow clock"
        assert await database.run(one, "show statement_timeout") == "7s"
        assert await database.run(one, "show idle_in_transaction_session_timeout") == "1500ms"


async def test_a_statement_that_takes_too_long_is_a_store_error(database_url: str) -> None:
    async with Database(database_url, statement_timeout=timedelta(milliseconds=20)) as database:
        with pytest.raises(StoreError, match="statement timeout"):
            await database.run(one, "select pg_sleep(10)")


@pytest.mark.parametrize(
    ("statement", "value", "kind"),
    [
        ("select %s::jsonb", '"\\u0000"', InputError),
        ("select %s::jsonb", '"\\ud800"', InputError),
        ("select %s::jsonb", "nan", InputError),
        ("select %s::jsonb", "[" * 30_000 + "]" * 30_000, LimitError),
        ("select %s::text", "a\0b", InputError),
        ("select %s::text", "\ud800", InputError),
        ("select %s::uuid", "me", InputError),
        ("select %s::int2", 100_000, InputError),
        ("select %s::timestamptz", "yesterday week", InputError),
        ("insert into permaflow.org values (gen_random_uuid(), %s, 'n')", "A B", InputError),
        ("insert into permaflow.org values (gen_random_uuid(), %s, 'n')", None, InputError),
        (
            "insert into permaflow.workflow_stats values (%s, gen_random_uuid())",
            "0" * 32,
            NotFoundError,
        ),
        ("insert into permaflow.generation values (true, %s)", 0, ConflictError),
        ("select %s from nothing", 1, StoreError),
    ],
)
async def test_an_error_is_named_after_who_is_at_fault(
    store: Database, statement: str, value: object, kind: type[PermaflowError]
) -> None:
    with pytest.raises(PermaflowError) as caught:
        await store.run(one, statement, value)
    assert type(caught.value) is kind


async def test_a_deadlock_is_tried_again(store: Database) -> None:
    """Two transactions lock two rows crosswise; PostgreSQL fails one of them, once."""
    locks = [asyncio.Event(), asyncio.Event()]
    attempts = 0

    async def work(connection: Connection, mine: int) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute("set local deadlock_timeout = '50ms'")
        await connection.execute("select pg_advisory_xact_lock(%s)", (mine,))
        locks[mine].set()
        await locks[1 - mine].wait()
        await connection.execute("select pg_advisory_xact_lock(%s)", (1 - mine,))

    engine = Database(store._pool.conninfo, size=2)
    async with engine:
        await asyncio.wait_for(asyncio.gather(engine.run(work, 0), engine.run(work, 1)), 10)
    assert attempts == 3


async def test_what_never_succeeds_is_given_up_after_five_attempts(store: Database) -> None:
    attempts = 0

    async def work(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute(
            "do $$ begin raise exception 'no' using errcode = 'serialization_failure'; end $$"
        )

    with pytest.raises(StoreError, match="40001"):
        await store.run(work)
    assert attempts == 5


async def test_a_failed_transaction_leaves_nothing(store: Database) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute("update permaflow.generation set value = 99")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        await store.run(work)
    assert await store.run(one, "select value from permaflow.generation") == 0


async def test_a_pool_without_a_free_connection_says_so_in_time(database_url: str) -> None:
    wait = timedelta(milliseconds=50)
    async with (
        Database(database_url, size=1, acquire_timeout=wait) as database,
        database.connection(),
    ):
        with pytest.raises(StoreUnavailableError, match="No connection to the database is free"):
            await database.run(one, "select 1")


async def test_work_goes_on_when_idle_connections_of_the_pool_have_died(
    database_url: str,
) -> None:
    async with Database(database_url, size=2) as database:
        assert await database.run(one, "select 1") == 1
        async with await psycopg.AsyncConnection.connect(database_url) as session:
            cursor = await session.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where application_name = 'permaflow' and datname = current_database()"
            )
            assert await cursor.fetchone() == (1,)
        assert await database.run(one, "select 1") == 1


async def test_a_database_without_the_schema_says_what_to_run(database_url: str) -> None:
    async with Database(database_url) as database:
        with pytest.raises(StoreError, match="permaflow db migrate"):
            await database.run(one, "select 1 from permaflow.of_another_version")


class Line:
    """A way to the server that can be cut: whoever connects meanwhile is hung up on."""

    def __init__(self, url: str) -> None:
        info = psycopg.conninfo.conninfo_to_dict(url)
        self._host, self._port = str(info["host"]), int(str(info["port"]))
        self._info = info
        self.cut = False
        self.calls = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return psycopg.conninfo.make_conninfo(**{**self._info, "host": "127.0.0.1", "port": port})

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        for writer in self._open:
            writer.close()

    async def _connect(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.calls += 1
        if self.cut:
            back.close()
            return
        far, there = await asyncio.open_connection(self._host, self._port)
        self._open |= {back, there}
        await asyncio.gather(self._pass_on(near, there), self._pass_on(far, back))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        except OSError:
            pass
        finally:
            sink.close()


async def test_a_server_that_was_away_for_long_is_used_again_at_once(database_url: str) -> None:
    line = Line(database_url)
    async with line as url, Database(url, size=2, acquire_timeout=timedelta(seconds=20)) as pool:
        assert await pool.run(one, "select 1") == 1
        line.cut, known = True, line.calls
        line.hang_up()
        waiting = asyncio.create_task(pool.run(one, "select 2"))
        async with asyncio.timeout(15):
            # Calls that doubled the wait each time would be 1, 2, 4, 8 s apart.
            while line.calls < known + 9:  # noqa: ASYNC110 - what the pool does is not announced
                await asyncio.sleep(0.02)
        line.cut = False
        async with asyncio.timeout(1.5):
            assert await waiting == 2
