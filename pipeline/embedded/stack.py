"""The servers that Permaflow needs, side by side in one data directory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from permaflow.errors import ServerError
from pipeline.embedded.binaries import Finder, find_binary
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.kafka import Kafka
from pipeline.embedded.lock import DirectoryLock
from pipeline.embedded.nats import Nats
from pipeline.embedded.postgres import Postgres
from pipeline.embedded.server import Recipe, Server
from pipeline.embedded.valkey import Valkey

ALL_SERVERS = frozenset({"postgres", "nats", "kafka", "valkey"})


class Stack:
    """PostgreSQL, NATS, a Kafka-compatible broker and Valkey, or those of them that are asked for.

    `urls` gives servers that run elsewhere: they are passed on and not started. `start` returns
    when every server has answered a real question and raises ServerError with a sentence otherwise;
    it leaves nothing running then. Linux stops the servers when the thread that called `start`
    ends.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        servers: frozenset[str] = ALL_SERVERS,
        urls: Mapping[str, str] | None = None,
        nats_sync_interval: str = "2m",
        find: Finder = find_binary,
        start_timeout: float = 30.0,
    ) -> None:
        unknown = (servers | set(urls or {})) - ALL_SERVERS
        if unknown:
            raise ServerError(
                f"There is no embedded server {', '.join(sorted(unknown))}; there are "
                f"{', '.join(sorted(ALL_SERVERS))}."
            )
        self._urls = dict(urls or {})
        self._directory = DataDirectory(data_dir)
        self._lock = DirectoryLock(self._directory.path)
        self._start_timeout = start_timeout
        self._postgres = Postgres(self._directory, find)
        recipes: dict[str, Recipe] = {
            "postgres": self._postgres,
            "nats": Nats(self._directory, find, nats_sync_interval),
            "kafka": Kafka(self._directory, find),
            "valkey": Valkey(self._directory, find),
        }
        self.servers: dict[str, Server] = {
            name: Server(recipes[name], self._directory, start_timeout)
            for name in sorted(servers - set(self._urls))
        }

    @property
    def data_dir(self) -> Path:
        return self._directory.path

    @property
    def database_url(self) -> str | None:
        return self._url("postgres")

    @property
    def database_socket_url(self) -> str | None:
        """The embedded database over its unix socket; None where it runs elsewhere."""
        return self._postgres.socket_url if "postgres" in self.servers else None

    @property
    def nats_url(self) -> str | None:
        return self._url("nats")

    @property
    def kafka_bootstrap(self) -> str | None:
        """host:port, as Kafka clients want it."""
        return self._url("kafka")

    @property
    def redis_url(self) -> str | None:
        return self._url("valkey")

    @property
    def pids(self) -> dict[str, int]:
        """The servers that run now."""
        return {name: server.pid for name, server in self.servers.items() if server.pid is not None}

    def _url(self, name: str) -> str | None:
        given = self._urls.get(name)
        if given is not None:
            return given
        server = self.servers.get(name)
        return server.url if server is not None else None

    async def start(self) -> Self:
        if not self.servers:
            return self
        self._directory.create()
        self._lock.acquire()
        try:
            results = await asyncio.gather(
                *(server.start() for server in self.servers.values()), return_exceptions=True
            )
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            await self.stop()
            raise failures[0]
        return self

    async def stop(self) -> None:
        """Stops what runs, in order, and lets go of the directory."""
        try:
            results = await asyncio.gather(
                *(server.stop() for server in self.servers.values()), return_exceptions=True
            )
        finally:
            self._lock.release()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def first_exit(self) -> Server:
        """Waits until a server ends that nobody stopped, and gives it: `restart` brings it back.

        Never returns where every server runs elsewhere.
        """
        if not self.servers:
            await asyncio.Event().wait()
        waiting = {
            asyncio.ensure_future(server.exited()): server for server in self.servers.values()
        }
        try:
            ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return waiting[next(iter(ended))]
        finally:
            for task in waiting:
                task.cancel()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
