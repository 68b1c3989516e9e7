"""`permaflow up`: every vertex on this machine, with embedded servers for what no URL is set for.

::

    nursery (imports) ──────────────────────────┐
    PostgreSQL, NATS, Kafka, Valkey ─► migrate ─┴─► one process a vertex ─► ready

A process that ends is started again, with growing pauses if it keeps ending; so is a server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from permaflow.errors import PermaflowError, ServerError
from pipeline import endpoints
from pipeline.bootstrap import bootstrap
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.lock import DirectoryLock
from pipeline.embedded.stack import Stack
from pipeline.listening import open_socket
from pipeline.nursery import Nursery
from pipeline.settings import Settings

VERTICES = ("orchestrator", "runner", "ingest", "completion", "clock", "gateway")

READY_WITHIN = 30.0
STOP_WITHIN = 12.0
_CALM = 10.0


@dataclass(slots=True)
class Process:
    """One process of a vertex. `port` is its ops port, 0 until it is ready."""

    vertex: str
    pid: int
    born_at: float
    port: int = 0


@dataclass(slots=True)
class Running:
    """What `up` has started: the settings as they came out, and the processes."""

    env: dict[str, str]
    api_url: str
    api_key: str
    seconds: float
    servers: Mapping[str, int]
    processes: dict[int, Process] = field(default_factory=dict)


class Up:
    """The supervisor. `started_at` is when the command began, by the monotonic clock."""

    def __init__(self, settings: Settings, nursery: Nursery, started_at: float) -> None:
        self._started = started_at
        self._nursery = nursery
        self._settings = settings
        self._processes: dict[int, Process] = {}
        self._deaths: dict[str, int] = {}
        self._failure: str | None = None
        self._env: dict[str, str] = {}
        self._stopping = False
        self._changed = asyncio.Event()

    async def run(
        self,
        stopped: asyncio.Event,
        ready: Callable[[Running], object] | None = None,
        prepare: Callable[[Mapping[str, str]], Awaitable[object]] | None = None,
    ) -> None:
        """Start everything, call `ready`, and stop everything once `stopped` is set.

        `prepare` is awaited between the servers and the vertices, with the children's environment.
        It may be stopped at any moment, also while it starts. Raises `ServerError` with a sentence
        when something cannot be started.
        """
        self._nursery.attach()
        listening = asyncio.create_task(self._listen())
        working = asyncio.create_task(self._run(ready, prepare))
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        finally:
            stopping.cancel()
            listening.cancel()
            self._nursery.close()

    async def _run(
        self,
        ready: Callable[[Running], object] | None,
        prepare: Callable[[Mapping[str, str]], Awaitable[object]] | None,
    ) -> None:
        """Until it is cancelled."""
        settings = self._settings
        given = {
            "postgres": settings.database_url,
            "nats": settings.nats_url,
            "kafka": settings.kafka_bootstrap,
            "valkey": settings.redis_url,
        }
        stack = Stack(settings.data_dir, urls={name: url for name, url in given.items() if url})
        self._check_port()
        async with AsyncExitStack() as held:
            if not stack.servers:
                _hold(settings.data_dir, held)
            await held.enter_async_context(stack)
            held.callback(endpoints.remove, stack.data_dir)
            held.push_async_callback(self._stop)
            env = await self._environment(stack.data_dir, _urls(stack))
            if prepare is not None:
                await prepare(env)
            self._env = env
            for vertex in VERTICES:
                self._nursery.spawn(vertex, env)
            await self._until_ready()
            running = self._running(env, stack.pids)
            endpoints.write(stack.data_dir, self._endpoints(running))
            if ready is not None:
                ready(running)
            await self._keep_servers(stack)

    def _check_port(self) -> None:
        """A sentence now is better than a gateway that ends in half a minute."""
        host, port = self._settings.http_host, self._settings.http_port
        try:
            open_socket(host, port).close()
        except OSError as error:
            other = endpoints.read(self._settings.data_dir)
            if other is not None:
                raise ServerError(
                    f"Permaflow runs already in {self._settings.data_dir}: process {other.pid}, "
                    f"{other.api_url}. Stop it first, or choose another --data-dir and --port."
                ) from error
            raise ServerError(
                f"Port {port} of {host} cannot be used: {error.strerror}. Stop what listens "
                "there, or choose another with --port (or PERMAFLOW_HTTP_PORT); 0 picks one."
            ) from error

    def _endpoints(self, running: Running) -> endpoints.Endpoints:
        env = running.env
        return endpoints.Endpoints(
            os.getpid(),
            running.api_url,
            env["PERMAFLOW_DATABASE_URL"],
            env["PERMAFLOW_NATS_URL"],
            env["PERMAFLOW_KAFKA_BOOTSTRAP"],
            env["PERMAFLOW_REDIS_URL"],
            {each.vertex: each.port for each in running.processes.values()},
        )

    def _running(self, env: dict[str, str], pids: Mapping[str, int]) -> Running:
        host, port = self._settings.http_host, env["PERMAFLOW_HTTP_PORT"]
        return Running(
            env,
            f"http://{host}:{port}",
            env["PERMAFLOW_API_KEY"],
            time.monotonic() - self._started,
            pids,
            self._processes,
        )

    async def _environment(self, data_dir: Path, urls: dict[str, str]) -> dict[str, str]:
        """The settings of the children: the URLs, and what must not change between two starts."""
        settings = self._settings
        keys = settings.encryption_keys.get_secret_value() or _kept(
            data_dir / "encryption-key", _new_key
        )
        api_key = await bootstrap(urls["PERMAFLOW_DATABASE_URL"], data_dir / endpoints.KEY_FILE)
        port = settings.http_port or _free_port(settings.http_host)
        return {
            **urls,
            "PERMAFLOW_ENCRYPTION_KEYS": keys,
            "PERMAFLOW_API_KEY": api_key,
            "PERMAFLOW_HTTP_HOST": settings.http_host,
            "PERMAFLOW_HTTP_PORT": str(port),
            **self._given(),
        }

    def _given(self) -> dict[str, str]:
        """Settings that a flag has set: children only see the environment."""
        names = ("cdc_tables", "kafka_topics", "http_allow", "sources", "functions", "task_types")
        more = ("stages", "log_level", "log_format")
        given = {
            f"PERMAFLOW_{name.upper()}": str(getattr(self._settings, name))
            for name in (*names, *more)
        }
        return {**given, "PERMAFLOW_CDC_TABLES": self._settings.cdc_tables or "auto"}

    # --- processes --------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while (message := await self._nursery.message()) is not None:
            match message:
                case {"born": str(vertex), "pid": int(pid)}:
                    self._processes[pid] = Process(vertex, pid, time.monotonic())
                    if self._stopping:
                        self._terminate(pid)
                case {"ready": str(), "pid": int(pid), "port": int(port)}:
                    if pid in self._processes:
                        self._processes[pid].port = port
                case {"failed": str(vertex), "error": str(error)}:
                    self._failure = f"{vertex}: {error}"
                case {"ended": int(pid)}:
                    self._ended(pid)
            self._changed.set()
        self._failure = "The nursery of processes ended."
        self._changed.set()

    def _ended(self, pid: int) -> None:
        process = self._processes.pop(pid, None)
        if process is None or self._stopping or not self._env:
            return
        lived = time.monotonic() - process.born_at
        deaths = self._deaths[process.vertex] = (
            0 if lived > _CALM else self._deaths.get(process.vertex, 0) + 1
        )
        pause = 0.0 if deaths <= 1 else min(5.0, 0.1 * 2**deaths)
        asyncio.get_running_loop().call_later(pause, self._respawn, process.vertex)

    def _respawn(self, vertex: str) -> None:
        if not self._stopping:
            self._nursery.spawn(vertex, self._env)

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            ready = {p.vertex for p in self._processes.values() if p.port}
            if ready.issuperset(VERTICES):
                return
            if self._failure is not None:
                raise ServerError(self._failure)
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                missing = ", ".join(v for v in VERTICES if v not in ready)
                raise ServerError(
                    f"Not ready after {READY_WITHIN:g} s: {missing}. See the log above."
                ) from None

    async def _keep_servers(self, stack: Stack) -> None:
        """Bring back a server that ended by itself."""
        while True:
            server = await stack.first_exit()
            for pause in (0.0, 0.2, 1.0, 2.0, 5.0):
                await asyncio.sleep(pause)
                try:
                    await server.restart()
                    break
                except PermaflowError:
                    continue

    def _terminate(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            self._processes.pop(pid, None)

    async def _stop(self) -> None:
        self._stopping = True
        for pid in list(self._processes):
            self._terminate(pid)
        deadline = time.monotonic() + STOP_WITHIN
        while self._processes and time.monotonic() < deadline:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                break


def _hold(data_dir: Path, held: AsyncExitStack) -> None:
    """Take the data directory for ourselves where no embedded server does."""
    directory = DataDirectory(data_dir)
    directory.create()
    lock = DirectoryLock(directory.path)
    lock.acquire()
    held.callback(lock.release)


def _urls(stack: Stack) -> dict[str, str]:
    found = {
        "PERMAFLOW_DATABASE_URL": stack.database_socket_url or stack.database_url,
        "PERMAFLOW_NATS_URL": stack.nats_url,
        "PERMAFLOW_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "PERMAFLOW_REDIS_URL": stack.redis_url,
    }
    return {name: url or "" for name, url in found.items()}


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The text of a file that only its owner reads; made the first time."""
    if path.exists():
        return path.read_text().strip()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        text = make()
        file.write(text + "\n")
    return text


def _new_key() -> str:
    return "up:" + base64.b64encode(secrets.token_bytes(32)).decode()


def _free_port(host: str) -> int:
    with open_socket(host, 0) as listener:
        return int(listener.getsockname()[1])
