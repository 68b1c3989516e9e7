"""The system under test: embedded PostgreSQL and NATS, and one real process of each vertex.

Everything is on: the gateway listens, ingest reads the database's log, the clock reconciles,
completion counts. The processes are those of `permaflow serve`, with the settings of `permaflow
up`. Whatever was started is stopped when the context is left, and by the kernel if the bench dies.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import psycopg

from bench.usage import Meter, resident_bytes
from permaflow.errors import PermaflowError
from permaflow.plan import Json
from pipeline.bootstrap import bootstrap
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.embedded.process import Launch, spawn
from pipeline.embedded.stack import Stack
from pipeline.ids import new_id
from pipeline.ops import open_socket
from pipeline.starter import announce
from pipeline.store import orgs, starts
from pipeline.store.database import Database
from pipeline.store.queries import load

VERTICES = ("gateway", "ingest", "orchestrator", "runner", "completion", "clock")
READY_WITHIN = 30.0
STOP_WITHIN = 15.0
START_BATCH = 200
LOOK_EVERY = 0.05

_QUERIES: dict[str, Any] = dict(load(Path(__file__).with_name("queries")))


class BenchError(PermaflowError):
    """A benchmark could not be carried out."""

    code = "bench"


@dataclass
class Stand:
    """A running system and what a benchmark does with it."""

    folder: Path
    stack: Stack
    database: Database
    bus: JetStreamBus
    http: httpx.AsyncClient
    reader: psycopg.AsyncConnection[tuple[Any, ...]]
    org: UUID
    gateway_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def pids(self) -> dict[str, int]:
        """Vertices and servers."""
        vertices = {name: process.pid for name, process in self.processes.items()}
        return {**vertices, **self.stack.pids}

    def meter(self) -> Meter:
        return Meter(self.pids)

    def resident(self) -> dict[str, float]:
        """Megabytes that each vertex holds."""
        return {
            name: round(resident_bytes(process.pid) / 1e6, 1)
            for name, process in self.processes.items()
        }

    async def query(self, name: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query of queries/figures.sql, if it gives any."""
        cursor = await self.reader.execute(_QUERIES[f"figures.{name}"], values or None)
        return await cursor.fetchall() if cursor.description else []

    async def value(self, name: str, *values: object) -> Any:
        """The first column of the first row."""
        return (await self.query(name, *values))[0][0]

    async def workflow(self, document: Json, name: str = "bench") -> dict[str, Any]:
        """An active workflow, saved through the gateway, as the gateway shows it."""
        root = "/workflows/v1/definitions"
        answer = await self.http.post(root, json={"name": name, "definition": document})
        if answer.status_code == 201:
            path = f"{root}/{answer.json()['id']}/status"
            answer = await self.http.patch(path, json={"status": "active"})
        if answer.status_code != 200:
            raise BenchError(f"The gateway refused a workflow: {answer.text}")
        shown: dict[str, Any] = answer.json()
        return shown

    async def start(self, workflow_id: str, count: int = 1, data: Json = None) -> list[UUID]:
        """Start runs: committed in batches, and their orchestrator woken."""
        body = orjson.dumps(data if data is not None else {})
        ids: list[UUID] = []
        while len(ids) < count:
            requests = [
                starts.StartRequest(new_id(), self.org, UUID(workflow_id), "api", input=body)
                for _ in range(min(START_BATCH, count - len(ids)))
            ]
            results = await self.database.run(starts.start_runs, requests)
            announce(self.bus, requests, results)
            ids += [result.run_id for result in results if isinstance(result, starts.Started)]
            if len(ids) == 0:
                raise BenchError(f"No run was started: {results[0]}")
        return ids

    async def until(
        self, reached: Callable[[], Any], what: str, within: float, every: float = LOOK_EVERY
    ) -> None:
        """Wait until the coroutine that `reached` makes says so."""
        deadline = time.monotonic() + within
        while not await reached():
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{what} did not happen within {within:g} s.")
            await asyncio.sleep(every)

    async def finished(self, within: float) -> None:
        """Wait until no run is open, and all are counted."""

        async def none_open() -> bool:
            return not await self.value("open_runs")

        async def none_unsettled() -> bool:
            return not await self.value("unsettled_runs")

        await self.until(none_open, "The end of all runs", within)
        await self.until(none_unsettled, "The counting of all runs", within)

    def check(self) -> None:
        """Raises if a process has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                last = last_line(self.folder / f"{name}.log")
                raise BenchError(f"{name} ended with status {process.returncode}: {last}")


def last_line(log: Path) -> str:
    """What a process said last, which is the error if one ended it."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the data of servers, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="permaflow-bench-"))
    folder.chmod(0o711)  # root's PostgreSQL runs under another account and must pass through
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def stand(
    *,
    vertices: Sequence[str] = VERTICES,
    statements: bool = False,
    profile: str = "",
    **settings: str,
) -> AsyncIterator[Stand]:
    """A fresh system, gone afterwards.

    `settings` are further settings of the vertices. With `statements` PostgreSQL counts what it
    executes. `profile` names a vertex to run under cProfile, which writes `<vertex>.prof` to the
    working directory.
    """
    async with AsyncExitStack() as held:
        folder = held.enter_context(scratch())
        stack = Stack(folder / "data", servers=frozenset({"postgres", "nats"}))
        await held.enter_async_context(stack)
        database_url = stack.database_socket_url
        assert database_url is not None
        assert stack.nats_url is not None
        key = await bootstrap(database_url, folder / "api-key")
        if statements:
            await _count_statements(stack, database_url)
        with open_socket("127.0.0.1", 0) as listener:
            port = int(listener.getsockname()[1])
        variables = {
            "PERMAFLOW_DATABASE_URL": database_url,
            "PERMAFLOW_NATS_URL": stack.nats_url,
            "PERMAFLOW_CDC_TABLES": "auto",
            "PERMAFLOW_HTTP_PORT": str(port),
            "PERMAFLOW_ENCRYPTION_KEYS": "bench:" + base64.b64encode(os.urandom(32)).decode(),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **{f"PERMAFLOW_{name.upper()}": value for name, value in settings.items()},
        }
        processes: dict[str, subprocess.Popen[bytes]] = {}
        held.push_async_callback(_stop, processes)
        for vertex in vertices:
            processes[vertex] = _spawn(vertex, variables, folder, profile == vertex)
        database = await held.enter_async_context(
            Database(database_url, application_name="permaflow bench")
        )
        bus = await connect(stack.nats_url, name="permaflow bench")
        held.push_async_callback(bus.close)
        reader = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        held.push_async_callback(reader.close)
        http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
        )
        await held.enter_async_context(http)
        org = await database.run(orgs.ensure)
        made = Stand(folder, stack, database, bus, http, reader, org.id, port, processes)

        async def ready() -> bool:
            return all((folder / f"{vertex}.ready").exists() for vertex in vertices)

        await made.until(ready, "The start of all vertices", READY_WITHIN, every=0.02)
        yield made


def _spawn(
    vertex: str, variables: dict[str, str], folder: Path, profiled: bool
) -> subprocess.Popen[bytes]:
    script = Path(sys.executable).with_name("permaflow")
    if not script.exists():
        raise BenchError(f"{script} is missing; install Permaflow in this environment first.")
    command = [str(script), "serve", vertex]
    if profiled:
        output = Path.cwd() / f"{vertex}.prof"
        command = [sys.executable, "-m", "cProfile", "-o", str(output), *command]
    ready = {"PERMAFLOW_READY_FILE": str(folder / f"{vertex}.ready")}
    launch = Launch(tuple(command), folder, variables={**variables, **ready})
    return spawn(launch, folder / f"{vertex}.log", signal.SIGKILL)


async def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_WITHIN
    for process in processes.values():
        try:
            await asyncio.to_thread(process.wait, max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)


async def _count_statements(stack: Stack, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute(_QUERIES["figures.preload"])
    await stack.servers["postgres"].restart()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute(_QUERIES["figures.count_statements"])
