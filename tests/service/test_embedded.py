"""The embedded servers, for real: started, asked, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
from pathlib import Path

import nats
import psycopg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from pipeline.embedded.server import connection
from pipeline.embedded.stack import ALL_SERVERS, Stack
from tests.service.stack_probe import (
    EMBEDDED,
    StackMaker,
    answers,
    ask,
    gone,
)

pytestmark = EMBEDDED


# --- starting and stopping -----------------------------------------------------------------------


async def test_all_four_servers_start_answer_and_leave_nothing_behind(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack(*ALL_SERVERS)
    await answers(stack)
    pids = stack.pids
    assert set(pids) == ALL_SERVERS

    await stack.stop()

    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert stack.pids == {}


async def test_a_second_start_finds_the_same_addresses_and_the_same_data(
    make_stack: StackMaker,
) -> None:
    first = await make_stack("postgres", "nats")
    await ask(first.database_url, "create table kept as select 7 as n")
    await first.stop()
    second = await make_stack("postgres", "nats")
    assert second.database_url == first.database_url
    assert second.nats_url == first.nats_url
    assert await ask(second.database_url, "select n from kept") == 7
    assert "was not properly shut down" not in second.servers["postgres"].log.read_text()


async def test_only_the_servers_asked_for_are_started(make_stack: StackMaker) -> None:
    stack = await make_stack("nats")
    assert set(stack.pids) == {"nats"}
    assert stack.database_url is None
    assert stack.kafka_bootstrap is None
    assert stack.redis_url is None


async def test_a_given_url_replaces_a_server(server_dir: Path) -> None:
    urls = {"postgres": "postgresql://elsewhere/db", "kafka": "broker:9092"}
    async with Stack(
        server_dir / "d", servers=frozenset({"postgres", "kafka", "valkey"}), urls=urls
    ) as stack:
        assert stack.database_url == "postgresql://elsewhere/db"
        assert stack.kafka_bootstrap == "broker:9092"
        assert set(stack.pids) == {"valkey"}


async def test_no_directory_is_made_when_every_server_is_replaced(server_dir: Path) -> None:
    async with Stack(
        server_dir / "d", servers=frozenset({"nats"}), urls={"nats": "nats://elsewhere"}
    ) as stack:
        assert stack.nats_url == "nats://elsewhere"
    assert not (server_dir / "d").exists()


async def test_a_path_may_hold_blanks_and_quotes(make_stack: StackMaker, server_dir: Path) -> None:
    await answers(await make_stack(*ALL_SERVERS, data_dir=server_dir / 'it\'s a "data" dir'))


async def test_a_cancelled_start_leaves_nothing_running(server_dir: Path) -> None:
    stack = Stack(server_dir / "d")
    starting = asyncio.create_task(stack.start())
    async with asyncio.timeout(10):
        while not stack.pids:  # noqa: ASYNC110 - to be cut off right after the first spawn
            await asyncio.sleep(0)
    pids = stack.pids
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    for pid in pids.values():
        await gone(pid)
    await make_and_stop(server_dir / "d")


async def make_and_stop(data_dir: Path) -> None:
    async with Stack(data_dir, servers=frozenset({"postgres", "nats"})) as stack:
        await answers(stack)


async def test_the_next_free_port_is_taken_when_the_remembered_one_is_not_free(
    make_stack: StackMaker,
) -> None:
    first = await make_stack("valkey")
    assert first.redis_url is not None
    port = int(first.redis_url.rpartition(":")[2].partition("/")[0])
    await first.stop()
    with socket.create_server(("127.0.0.1", port)):
        second = await make_stack("valkey")
        assert second.redis_url != first.redis_url
        await answers(second)


async def test_a_server_that_ends_by_itself_is_noticed_and_brought_back(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack("nats", "valkey")
    os.kill(stack.pids["valkey"], signal.SIGKILL)
    async with asyncio.timeout(5):
        server = await stack.first_exit()
    assert server.name == "valkey"
    await server.restart()
    await answers(stack)


# --- durability and access -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("wal_level", "logical"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("max_wal_senders", "20"),
        ("max_replication_slots", "20"),
        ("max_slot_wal_keep_size", "4GB"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
    ],
)
async def test_postgres_runs_with_the_settings_that_durability_and_cdc_need(
    database_url: str, setting: str, value: str
) -> None:
    assert await ask(database_url, f"show {setting}") == value


async def test_a_logical_slot_can_be_made(database_url: str) -> None:
    slot = "select slot_name from pg_create_logical_replication_slot('probe', 'pgoutput', true)"
    assert await ask(database_url, slot) == "probe"


async def test_nobody_gets_in_without_the_password(make_stack: StackMaker) -> None:
    stack = await make_stack("postgres", "nats", "valkey")
    for url in (stack.database_url, stack.servers["postgres"].url):
        assert url is not None
        with pytest.raises(psycopg.OperationalError, match=r"password|authentication"):
            await psycopg.AsyncConnection.connect(without_password(url))
    port = int(str(stack.nats_url).rpartition(":")[2])
    async with connection(port) as (reader, writer):
        writer.write(b'CONNECT {"verbose":true}\r\n')
        await reader.readline()
        assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
    async with Redis.from_url(without_password(str(stack.redis_url))) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


def without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


async def test_passwords_are_kept_where_only_the_owner_reads_them(make_stack: StackMaker) -> None:
    stack = await make_stack("nats", "valkey")
    kept = sorted((stack.data_dir / "secrets").iterdir())
    assert [file.name for file in kept] == ["nats", "valkey"]
    for file in [*kept, stack.data_dir / "nats/nats.conf", stack.data_dir / "valkey/valkey.conf"]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_unix_socket_works_however_long_the_path_of_the_data_directory(
    make_stack: StackMaker, server_dir: Path
) -> None:
    stack = await make_stack("postgres", data_dir=server_dir / ("long" * 30) / "d")
    assert stack.database_socket_url is not None
    assert await ask(stack.database_socket_url, "select inet_client_addr() is null") is True
    await stack.stop()
    link = stack.data_dir / "run" / "postgres"
    shutil.rmtree(link.readlink())


# --- the fixtures that other tests stand on ------------------------------------------------------


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_database_of_its_own(database_url: str, turn: int) -> None:
    await ask(database_url, f"create table same_name as select {turn} as n")
    assert await ask(database_url, "select n from same_name") == turn


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_a_bus_without_streams(nats_url: str, turn: int) -> None:
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    assert await jetstream.streams_info() == []
    await jetstream.add_stream(name="same_name", subjects=[f"same.{turn}"])
    await client.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_an_empty_cache(redis_url: str, turn: int) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("same_name", turn)
