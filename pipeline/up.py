"""`permaflow up`: every vertex on this machine, with embedded servers for what no URL is set for.

::

    fork server (imports) ──────────────────────┐
    PostgreSQL, NATS, Kafka, Valkey ─► migrate ─┴─► one process a vertex ─► ready

A process that ends is started again; so is a server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
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
from pipeline.forkserver import ForkServer
from pipeline.listening import open_socket
from pipeline.processes import Process, Processes
from pipeline.settings import Settings

VERTICES = ("orchestrator", "runner", "ingest", "completion", "clock", "gateway")


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

    def __init__(self, settings: Settings, forks: ForkServer, started_at: float) -> None:
        self._started = started_at
        self._settings = settings
        self._processes = Processes(forks)

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
        self._processes.listen()
        working = asyncio.create_task(self._run(ready, prepare))
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        finally:
            stopping.cancel()
            self._processes.close()

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
            held.push_async_callback(self._processes.stop)
            env = await self._environment(stack.data_dir, _urls(stack))
            if prepare is not None:
                await prepare(env)
            self._processes.start(VERTICES, env)
            await self._processes.until_ready(VERTICES)
            running = self._running(env, stack.pids)
            endpoints.write(stack.data_dir, self._endpoints(running))
            if ready is not None:
                ready(running)
            from pipeline import telemetry  # not earlier: it takes a while

            telemetry.configure(settings.log_level, settings.log_format)
            keeping = asyncio.create_task(_keep_servers(stack))
            try:
                await self._processes.watch()
            finally:
                keeping.cancel()

    def _check_port(self) -> None:
        """A sentence now is better than a gateway that ends in half a minute."""
        host, port = self._settings.http_host, self._settings.http_port
        try:
            open_socket(host, port, "--port (or PERMAFLOW_HTTP_PORT)").close()
        except ServerError as error:
            other = endpoints.read(self._settings.data_dir)
            if other is not None:
                raise ServerError(
                    f"Permaflow runs already in {self._settings.data_dir}: process {other.pid}, "
                    f"{other.api_url}. Stop it first, or choose another --data-dir and --port."
                ) from error
            raise

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
            self._processes.alive,
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
        names = (
            "cdc_tables",
            "kafka_topics",
            "http_allow",
            "sources",
            "functions",
            "task_types",
            "plugins",
        )
        more = ("stages", "log_level", "log_format")
        given = {
            f"PERMAFLOW_{name.upper()}": str(getattr(self._settings, name))
            for name in (*names, *more)
        }
        return {**given, "PERMAFLOW_CDC_TABLES": self._settings.cdc_tables or "auto"}


async def _keep_servers(stack: Stack) -> None:
    """Bring back a server that ended by itself."""
    from pipeline import telemetry

    while True:
        server = await stack.first_exit()
        telemetry.log.warning(telemetry.SERVER_ENDED, server=server.name)
        for pause in (0.0, 0.2, 1.0, 2.0, 5.0):
            await asyncio.sleep(pause)
            try:
                await server.restart()
                break
            except PermaflowError as error:
                telemetry.log.error(telemetry.SERVER_FAILED, server=server.name, error=str(error))


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
