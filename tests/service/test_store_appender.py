"""Journal rows over libpq: what one statement may meet."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import threading
from contextlib import suppress
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
import uvloop

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


def cut(journal: Journal) -> None:
    """The appender's connection is gone, and nobody has looked at it since."""
    assert journal._appender is not None
    descriptor = os.dup(journal._appender._libpq.socket)
    with socket.socket(fileno=descriptor) as connection:
        connection.shutdown(socket.SHUT_RDWR)


async def test_a_connection_that_is_found_lost_while_sending_is_let_go(journal: Journal) -> None:
    for _ in range(3):
        await journal.commit(append(1))
        cut(journal)
        with pytest.raises(StoreUnavailableError):
            await journal.commit(append(1))
        async with asyncio.timeout(5):
            batch = append(1)
            batch.statuses.append((batch.runs[0], "waiting"))
            await journal.commit(batch)
            await journal.commit(append(1))


async def test_a_connection_that_is_lost_while_much_is_sent_is_let_go(journal: Journal) -> None:
    await journal.commit(append(1))
    entries = '[["x","' + "y" * 1_000_000 + '"]]'
    sending = asyncio.create_task(journal.commit(append(*range(1, 100), entries=entries)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cut(journal)
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailableError):
            await sending
        await journal.commit(append(1))


class Crashing:
    """A server in front of the real one that, once told so, answers as one does whose postmaster
    was killed: with a last word, and a reset.
    """

    LAST_WORD = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._real = (parts.hostname or "", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()
        self.crashes = False
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._real) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(65_536)
                    if not data:
                        return
                    if source is client and self.crashes:
                        self.crashes = False
                        size = struct.pack("!I", len(self.LAST_WORD) + 4)
                        client.sendall(b"E" + size + self.LAST_WORD)
                        reset = struct.pack("ii", 1, 0)
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                        return
                    (server if source is client else client).sendall(data)


def test_a_reset_after_a_last_word_is_noticed_by_uvloop_too(database_url: str) -> None:
    async def commit_through_crashes() -> None:
        server = Crashing(database_url)
        journal = Journal(lambda: psycopg.AsyncConnection.connect(server.url, autocommit=True))
        for _ in range(20):
            async with asyncio.timeout(5):
                await journal.commit(append(1))
                server.crashes = True
                with pytest.raises(StoreError):
                    await journal.commit(append(1))
                await journal.commit(append(1))
        await journal.close()
        server.close()

    uvloop.run(commit_through_crashes())


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
