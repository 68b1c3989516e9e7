"""The embedded servers and kill -9: of one of them, and of their supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import nats
import psycopg
import pytest
from redis.asyncio import Redis

from pipeline.embedded.stack import Stack
from tests.service.stack_probe import (
    EMBEDDED,
    StackMaker,
    answers,
    ask,
    gone,
    owner,
    supervisor,
    topics,
)

pytestmark = EMBEDDED


async def test_postgres_keeps_what_was_committed_before_kill_9(make_stack: StackMaker) -> None:
    stack = await make_stack("postgres")
    server, url = stack.servers["postgres"], stack.database_url
    await ask(url, "create table kept as select 7 as n")
    await server.kill()
    assert server.pid is None
    with pytest.raises(psycopg.OperationalError):
        await ask(url, "select 1")

    await server.start()

    assert stack.database_url == url
    assert await ask(url, "select n from kept") == 7
    assert "was not properly shut down" in server.log.read_text()


async def test_nats_keeps_its_streams_over_kill_9(make_stack: StackMaker) -> None:
    stack = await make_stack("nats")
    server, url = stack.servers["nats"], str(stack.nats_url)
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="kept", subjects=["kept.>"])
    await client.jetstream().publish("kept.one", b"7")
    await client.close()
    killed = server.pid
    await server.kill()
    await server.start()
    assert server.pid != killed
    assert stack.nats_url == url
    client = await nats.connect(url)
    message = await client.jetstream().get_last_msg("kept", "kept.one")
    await client.close()
    assert message.data == b"7"


async def test_kafka_comes_back_where_it_was_with_an_empty_log(make_stack: StackMaker) -> None:
    from aiokafka import AIOKafkaProducer

    stack = await make_stack("kafka")
    server, address = stack.servers["kafka"], stack.kafka_bootstrap
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await producer.start()
    await producer.send_and_wait("orders", b"7")
    await producer.stop()
    assert await topics(stack) == {"orders"}
    await server.kill()
    await server.start()
    assert stack.kafka_bootstrap == address
    assert await topics(stack) == set()


async def test_valkey_comes_back_where_it_was_and_empty(make_stack: StackMaker) -> None:
    stack = await make_stack("valkey")
    server, url = stack.servers["valkey"], str(stack.redis_url)
    async with Redis.from_url(url) as client:
        await client.set("key", "value")
    await server.kill()
    await server.start()
    assert stack.redis_url == url
    async with Redis.from_url(url) as client:
        assert await client.get("key") is None


async def test_the_servers_end_when_their_supervisor_is_killed(server_dir: Path) -> None:
    async with supervisor(server_dir / "d") as running:
        await ask(running.urls["postgres"], "create table kept as select 7 as n")
        running.process.kill()
        for pid in running.pids.values():
            await gone(pid)
    async with Stack(server_dir / "d", servers=frozenset({"postgres"})) as stack:
        assert stack.database_url == running.urls["postgres"]
        assert await ask(stack.database_url, "select n from kept") == 7


async def test_a_start_right_after_the_kill_of_a_supervisor_waits_for_its_servers(
    server_dir: Path,
) -> None:
    async with supervisor(server_dir / "d") as running:
        running.process.kill()
        await running.process.wait()
        async with Stack(server_dir / "d") as stack:
            await answers(stack)
            assert stack.database_url == running.urls["postgres"]


async def test_servers_that_outlived_their_supervisor_are_stopped_by_the_next_start(
    server_dir: Path,
) -> None:
    async with supervisor(server_dir / "d", "--no-death-signal") as running:
        running.process.kill()
        await running.process.wait()
        for pid in running.pids.values():
            os.kill(pid, 0)
        async with Stack(server_dir / "d") as stack:
            await answers(stack)
            for name, pid in running.pids.items():
                assert stack.pids[name] != pid
                await gone(pid)


async def test_a_postgres_that_nobody_remembers_is_stopped_too(server_dir: Path) -> None:
    async with supervisor(server_dir / "d", "--no-death-signal") as running:
        running.process.kill()
        await running.process.wait()
        (server_dir / "d/run/postgres.json").unlink()
        async with Stack(server_dir / "d", servers=frozenset({"postgres", "nats"})) as stack:
            await answers(stack)
            await gone(running.pids["postgres"])


async def test_a_pid_file_whose_number_belongs_to_a_stranger_is_no_obstacle(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack("postgres")
    pid_file = stack.data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    user = owner(stack.pids["postgres"])
    await stack.stop()
    stranger = await asyncio.create_subprocess_exec(*("sleep", "600"), user=user)
    try:
        lines[0] = str(stranger.pid)
        pid_file.write_text("\n".join(lines) + "\n")
        os.chown(pid_file, user, -1)
        await answers(await make_stack("postgres", start_timeout=3.0))
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found through /proc")
async def test_a_child_that_outlives_its_postgres_does_not_keep_the_next_one_from_starting(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack("postgres")
    server = stack.servers["postgres"]
    connection = await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True)
    cursor = await connection.execute("select pg_backend_pid()")
    (backend,) = await cursor.fetchone()
    os.kill(backend, signal.SIGSTOP)

    await server.kill()
    async with asyncio.timeout(20):
        await server.start()

    async with await psycopg.AsyncConnection.connect(stack.database_url) as again:
        await again.execute("select 1")
    await connection.close()
