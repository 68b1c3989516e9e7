"""Real servers for tests: started once a session, and only those that a test asks for.

    postgres_server, nats_server, kafka_server, valkey_server    one for the whole session
    database_url       a fresh database for this test, cloned from a migrated template
    nats_url           JetStream without streams left over from an earlier test
    kafka_bootstrap    topics stay; a test uses names of its own
    redis_url          empty
    make_stack         a stack of your own, for tests that kill servers
    server_dir         a folder for the data of such servers

PERMAFLOW_TEST_STACK=docker takes them from containers instead (testcontainers).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import pytest

from pipeline.embedded.server import Server
from pipeline.embedded.stack import Stack

T = TypeVar("T")
StackMaker = Callable[..., Awaitable[Stack]]

BACK_END = os.environ.get("PERMAFLOW_TEST_STACK", "embedded")
TEMPLATE = "permaflow_template"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """`server` is None for a container."""

    url: str
    server: Server | None = None


def pytest_report_header() -> str:
    return (
        f"servers: {BACK_END} (PERMAFLOW_TEST_STACK=embedded|docker), each started when first used"
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a sync fixture, apart from the loops of the tests.

    In this thread: the servers live as long as the thread that started them.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Servers:
    """Starts each server when it is first asked for."""

    def __init__(self, folder: Path, on_exit: ExitStack) -> None:
        self._folder = folder
        self._on_exit = on_exit
        self._running: dict[str, RunningServer] = {}

    def get(self, name: str) -> RunningServer:
        if name not in self._running:
            start = self._start_container if BACK_END == "docker" else self._start_embedded
            self._running[name] = start(name)
        return self._running[name]

    def _start_embedded(self, name: str) -> RunningServer:
        stack = Stack(self._folder / name, servers=frozenset({name}))
        run(stack.start())
        self._on_exit.callback(lambda: run(stack.stop()))
        server = stack.servers[name]
        return RunningServer(server.url, server)

    def _start_container(self, name: str) -> RunningServer:
        from tests.containers import start_container

        return RunningServer(start_container(name, self._on_exit))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="permaflow-test-"))
    try:
        with ExitStack() as on_exit:
            yield Servers(folder, on_exit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(servers: Servers) -> RunningServer:
    return servers.get("postgres")


@pytest.fixture(scope="session")
def nats_server(servers: Servers) -> RunningServer:
    return servers.get("nats")


@pytest.fixture(scope="session")
def kafka_server(servers: Servers) -> RunningServer:
    return servers.get("kafka")


@pytest.fixture(scope="session")
def valkey_server(servers: Servers) -> RunningServer:
    return servers.get("valkey")


# --- what tests use ---------------------------------------------------------------------------


def with_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


async def execute(url: str, statement: str) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        await session.execute(statement.encode())


async def fill_template(url: str) -> None:
    """What every test's database contains: the schema at head, once there are migrations."""
    if importlib.util.find_spec("pipeline.store.migrate") is not None:
        from pipeline.store.migrate import migrate

        await migrate(url)


@pytest.fixture(scope="session")
def template_database(postgres_server: RunningServer) -> str:
    async def make() -> None:
        await execute(postgres_server.url, f"create database {TEMPLATE}")
        await fill_template(with_database(postgres_server.url, TEMPLATE))

    run(make())
    return TEMPLATE


@pytest.fixture
async def empty_database_url(postgres_server: RunningServer) -> AsyncIterator[str]:
    """A fresh database with nothing in it, for tests of migrations."""
    async with AsyncExitStack() as on_exit:
        yield await _new_database(postgres_server.url, "template0", on_exit)


@pytest.fixture
async def database_url(
    postgres_server: RunningServer, template_database: str
) -> AsyncIterator[str]:
    """A fresh, migrated database, dropped after the test with whoever is still connected."""
    async with AsyncExitStack() as on_exit:
        yield await _new_database(postgres_server.url, template_database, on_exit)


@pytest.fixture
def database(database_url: str) -> str:
    return database_url


async def _new_database(server_url: str, template: str, on_exit: AsyncExitStack) -> str:
    name = f"test_{uuid.uuid4().hex[:12]}"
    await execute(server_url, f"create database {name} template {template}")
    on_exit.push_async_callback(execute, server_url, f"drop database {name} with (force)")
    return with_database(server_url, name)


@pytest.fixture
async def nats_url(nats_server: RunningServer) -> AsyncIterator[str]:
    import nats

    yield nats_server.url
    client = await nats.connect(nats_server.url)
    try:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name)
    finally:
        await client.close()


@pytest.fixture
def kafka_bootstrap(kafka_server: RunningServer) -> str:
    return kafka_server.url


@pytest.fixture
async def redis_url(valkey_server: RunningServer) -> str:
    from redis.asyncio import Redis

    async with Redis.from_url(valkey_server.url) as client:
        await client.flushall()
    return valkey_server.url


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """Like tmp_path, but open to the other account under which root's PostgreSQL runs."""
    folder = Path(tempfile.mkdtemp(prefix="permaflow-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def make_stack(server_dir: Path) -> AsyncIterator[StackMaker]:
    """`await make_stack("postgres", "nats")`: started, and stopped after the test."""
    async with AsyncExitStack() as on_exit:

        async def make(*names: str, **options: Any) -> Stack:
            folder = options.pop("data_dir", server_dir / "stack")
            stack = Stack(folder, servers=frozenset(names), **options)
            on_exit.push_async_callback(stack.stop)
            return await stack.start()

        yield make
