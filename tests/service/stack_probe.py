"""Questions to an embedded stack, and a stack in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
from redis.asyncio import Redis

from pipeline.embedded.stack import Stack
from tests.fix_servers import BACK_END

EMBEDDED = [
    pytest.mark.service,
    pytest.mark.skipif(BACK_END != "embedded", reason="PERMAFLOW_TEST_STACK is not embedded"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
StackMaker = Callable[..., Coroutine[Any, Any, Stack]]


async def ask(url: str | None, question: str) -> Any:
    assert url is not None
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        cursor = await session.execute(question.encode())
        row = await cursor.fetchone() if cursor.description else None
    return row[0] if row else None


async def gone(pid: int) -> None:
    """Waits until the process has ended."""
    try:
        file = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(file, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        loop.remove_reader(file)
        os.close(file)


async def answers(stack: Stack) -> None:
    """Asks every server that runs through the client library that Permaflow uses."""
    if "postgres" in stack.servers:
        assert await ask(stack.database_url, "select current_database()") == "permaflow"
    if "nats" in stack.servers:
        client = await nats.connect(stack.nats_url)
        assert (await client.jetstream().account_info()).streams >= 0
        assert client.max_payload == 8 * 1024 * 1024
        await client.close()
    if "kafka" in stack.servers:
        assert await topics(stack) >= set()
    if "valkey" in stack.servers:
        async with Redis.from_url(stack.redis_url) as client:
            assert await client.ping()


async def topics(stack: Stack) -> set[str]:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap)
    await consumer.start()
    try:
        return set(await consumer.topics())
    finally:
        await consumer.stop()


@dataclass(frozen=True, slots=True)
class Supervisor:
    process: asyncio.subprocess.Process
    pids: dict[str, int]
    urls: dict[str, str]
    uid: int


@asynccontextmanager
async def supervisor(data_dir: Path, *options: str) -> AsyncIterator[Supervisor]:
    script = Path(__file__).with_name("supervise.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), str(data_dir), "postgres,nats,kafka,valkey", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    handles: list[int] = []
    try:
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
            if not line:
                pytest.fail((await process.stderr.read()).decode())
        report = json.loads(line)
        handles = [os.pidfd_open(pid) for pid in report["pids"].values()]
        yield Supervisor(process, report["pids"], report["urls"], report["uid"])
    finally:
        process.stdin.close()
        async with asyncio.timeout(30):
            await process.communicate()
        end_all(handles)


def end_all(handles: list[int]) -> None:
    """A test that fails leaves no server behind either."""
    for handle in handles:
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(handle)


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid
