"""One running server: started until it answers, stopped, killed, restarted where it was."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from permaflow.errors import ServerError
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.process import (
    POLL,
    Launch,
    end,
    end_those_in,
    remember,
    remembered,
    spawn,
    until_exit,
)

_PROBE_LIMIT = 5.0
_KILL_LIMIT = 10.0
_TAIL_LINES = 20


class NotReadyError(Exception):
    """The server does not answer yet."""


class Recipe(Protocol):
    """What one kind of server is. Implementations: postgres, nats, kafka, valkey."""

    @property
    def name(self) -> str: ...

    @property
    def stop_signal(self) -> signal.Signals:
        """What makes it stop in order; also what it gets when its supervisor dies."""
        ...

    @property
    def url(self) -> str:
        """Where clients reach it; settled by `prepare`."""
        ...

    async def prepare(self) -> Launch:
        """Makes its data and configuration ready; called before every start."""
        ...

    async def ping(self) -> None:
        """A real question to the server. Raises NotReadyError or OSError until it answers."""
        ...


class Server:
    def __init__(self, recipe: Recipe, directory: DataDirectory, start_timeout: float) -> None:
        self._recipe = recipe
        self._directory = directory
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self._recipe.name

    @property
    def url(self) -> str:
        return self._recipe.url

    @property
    def log(self) -> Path:
        return self._directory.path / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Returns when the server has answered. Raises ServerError with the end of its log."""
        if self.pid is not None:
            return
        orphan = remembered(self._directory.run_file(self.name))
        if orphan is not None:
            await end(orphan, self._recipe.stop_signal)
        deadline = time.monotonic() + self._start_timeout
        while True:
            log = self._directory.log(self.name)
            log_start = log.stat().st_size if log.exists() else 0
            try:
                launch = await self._recipe.prepare()
                self._process = spawn(launch, log, self._recipe.stop_signal)
                remember(self._directory.run_file(self.name), self._process.pid)
            except OSError as error:
                await asyncio.shield(self.kill())
                raise ServerError(
                    f"{self.name} could not be started: {error.strerror} ({error.filename}). Check "
                    f"the rights and the space in {self._directory.path}."
                ) from error
            try:
                problem = await self._until_it_answers(deadline)
            except BaseException:
                await asyncio.shield(self.kill())
                raise
            if problem is None:
                return
            await self.kill()
            # A port taken meanwhile, or memory and files of a killed predecessor not yet let go.
            if "in use" in self._tail(log_start) and time.monotonic() < deadline:
                await asyncio.sleep(10 * POLL)
                continue
            raise ServerError(
                f"{self.name} did not start: {problem}. The end of its log ({self.log}):\n"
                + (self._tail(log_start) or "(nothing was written)")
            )

    async def stop(self, patience: float = 10.0) -> None:
        """In order; killed after `patience` seconds."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self._recipe.stop_signal)
            try:
                async with asyncio.timeout(patience):
                    await until_exit(process)
            except TimeoutError:
                pass
            finally:
                await asyncio.shield(self.kill())
        self._forget()

    async def kill(self) -> None:
        """kill -9: what it holds in memory is lost, its port and its data stay."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        async with asyncio.timeout(_KILL_LIMIT):
            await until_exit(process)
        end_those_in(self._directory.path.resolve() / self.name)
        self._forget()

    async def restart(self) -> None:
        """Stops it if it runs and starts it on the same port with the same data."""
        await self.stop()
        await self.start()

    async def exited(self) -> int:
        """Waits until the process ends by itself or by others; its exit status."""
        if self._process is None:
            return 0
        await until_exit(self._process)
        return self._process.returncode

    def _forget(self) -> None:
        self._directory.run_file(self.name).unlink(missing_ok=True)

    async def _until_it_answers(self, deadline: float) -> str | None:
        """None when it answers, else what is wrong."""
        last = "it gave no answer"
        process = self._process
        assert process is not None
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return f"it ended with status {process.returncode}"
            try:
                async with asyncio.timeout(_PROBE_LIMIT):
                    await self._recipe.ping()
            except (NotReadyError, OSError, EOFError) as error:
                last = str(error) or type(error).__name__
            else:
                return None
            await asyncio.sleep(POLL)
        return f"no answer within {self._start_timeout:g} s ({last})"

    def _tail(self, start: int) -> str:
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(start, self.log.stat().st_size - 16_384))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])


@asynccontextmanager
async def connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection for probes that need no client library."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
