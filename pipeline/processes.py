"""The processes of the vertices on this machine: born, waited for, replaced when they end, stopped.

One that ends is started again, with growing pauses if it keeps ending.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from permaflow.errors import ServerError
from pipeline.forkserver import ForkServer

READY_WITHIN = 30.0
STOP_WITHIN = 15.0
"""A little more than a process gives itself; see `serve`."""
_CALM = 10.0
"""Seconds that a process must live for its end to count as the first one."""


@dataclass(slots=True)
class Process:
    """One process of a vertex. `port` is its ops port, 0 until it is ready."""

    vertex: str
    pid: int
    born_at: float
    port: int = 0


class Processes:
    """`alive` is pid → process. Begin with `listen`."""

    def __init__(self, forks: ForkServer) -> None:
        self.alive: dict[int, Process] = {}
        self._forks = forks
        self._env: Mapping[str, str] = {}
        self._listening: asyncio.Task[None] | None = None
        self._deaths: dict[str, int] = {}
        self._failures: dict[str, str] = {}
        self._is_lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._stopping = False

    def listen(self) -> None:
        """Hear what the fork server and the children say, from now on."""
        self._forks.attach()
        self._listening = asyncio.create_task(self._listen())

    def start(self, vertices: Sequence[str], env: Mapping[str, str]) -> None:
        """Ask for one process of each vertex."""
        self._env = env
        for vertex in vertices:
            self._forks.spawn(vertex, env)

    async def until_ready(self, vertices: Sequence[str]) -> None:
        """Raises `ServerError` if one of them fails, or takes too long."""
        deadline = time.monotonic() + READY_WITHIN
        while True:
            ready = {process.vertex for process in self.alive.values() if process.port}
            if ready.issuperset(vertices):
                return
            if self._is_lost.is_set():
                raise ServerError(_LOST)
            for vertex, failure in self._failures.items():
                raise ServerError(f"{vertex}: {failure}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                missing = ", ".join(vertex for vertex in vertices if vertex not in ready)
                raise ServerError(
                    f"Not ready after {READY_WITHIN:g} s: {missing}. See the log above."
                ) from None

    async def watch(self) -> None:
        """As long as processes can be replaced; then raises `ServerError`."""
        await self._is_lost.wait()
        raise ServerError(_LOST)

    async def stop(self) -> None:
        """Ask all to end, and wait until they have."""
        self._stopping = True
        for pid in list(self.alive):
            self._terminate(pid)
        deadline = time.monotonic() + STOP_WITHIN
        while self.alive and not self._is_lost.is_set() and time.monotonic() < deadline:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                break

    def close(self) -> None:
        """End the fork server, and whatever still lives in it."""
        if self._listening is not None:
            self._listening.cancel()
        self._forks.close()

    async def _listen(self) -> None:
        while (message := await self._forks.message()) is not None:
            match message:
                case {"born": str(vertex), "pid": int(pid)}:
                    self.alive[pid] = Process(vertex, pid, time.monotonic())
                    if self._stopping:
                        self._terminate(pid)
                case {"ready": str(), "pid": int(pid), "port": int(port)}:
                    if pid in self.alive:
                        self.alive[pid].port = port
                case {"failed": str(vertex), "error": str(error)}:
                    self._failures[vertex] = error
                case {"ended": int(pid), "status": int(status)}:
                    self._ended(pid, status)
            self._changed.set()
        self._is_lost.set()
        self._changed.set()

    def _ended(self, pid: int, status: int) -> None:
        process = self.alive.pop(pid, None)
        if process is None or self._stopping:
            return
        vertex = process.vertex
        if process.port:
            # An end before it was ready is told by `until_ready`.
            _tell(vertex, status, self._failures.pop(vertex, ""))
        lived = time.monotonic() - process.born_at
        deaths = self._deaths[vertex] = 0 if lived > _CALM else self._deaths.get(vertex, 0) + 1
        pause = 0.0 if deaths <= 1 else min(5.0, 0.1 * 2**deaths)
        asyncio.get_running_loop().call_later(pause, self._respawn, vertex)

    def _respawn(self, vertex: str) -> None:
        if not self._stopping and not self._is_lost.is_set():
            self._forks.spawn(vertex, self._env)

    def _terminate(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            self.alive.pop(pid, None)


_LOST = "The process that the vertices are born from was killed, and they with it. Start again."


def _tell(vertex: str, status: int, error: str) -> None:
    from pipeline import telemetry

    telemetry.log.warning(telemetry.VERTEX_ENDED, vertex=vertex, status=status, error=error)
