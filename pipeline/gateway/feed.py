"""Who watches which run: doorbells from the orchestrators, handed on to open streams.

There is one subscription for each organisation that somebody watches, and none when nobody does.
A ring says that a run has advanced, nothing more: whoever watches reads the journal.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from pipeline import telemetry
from pipeline.bus.port import Bus
from pipeline.bus.subjects import live
from pipeline.gateway.problems import Refusal
from pipeline.wire import decode_live

MOST = 2_000
MOST_OF_ONE = 200
"""Open streams of a process, and of one organisation in it."""


class Watcher:
    """Somebody who watches a run. `news` is set when there may be some."""

    __slots__ = ("gone", "news", "run_id")

    def __init__(self, run_id: UUID) -> None:
        self.run_id = run_id
        self.news = asyncio.Event()
        self.gone = False

    def leave(self) -> None:
        """End the stream."""
        self.gone = True
        self.news.set()


class Feed:
    """The watchers of this process."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._watchers: dict[UUID, dict[UUID, set[Watcher]]] = defaultdict(dict)
        self._counts: dict[UUID, int] = defaultdict(int)
        self._stops: dict[UUID, Callable[[], Awaitable[None]]] = {}
        self._locks: dict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False

    @asynccontextmanager
    async def watch(self, org: UUID, run_id: UUID) -> AsyncIterator[Watcher]:
        """Watch a run. Refuses (429, 503) when too many watch, or when the process stops."""
        if self._closed:
            raise Refusal(503, "draining", "This process stops.", headers={"retry-after": "1"})
        if self._counts[org] >= MOST_OF_ONE or sum(self._counts.values()) >= MOST:
            raise Refusal(
                429, "too_many_streams", "Too many streams are open.", headers={"retry-after": "5"}
            )
        watcher = Watcher(run_id)
        self._counts[org] += 1
        self._watchers[org].setdefault(run_id, set()).add(watcher)
        telemetry.SSE_CLIENTS.inc()
        try:
            await self._tune(org)
            yield watcher
        finally:
            telemetry.SSE_CLIENTS.dec()
            self._counts[org] -= 1
            watching = self._watchers[org][run_id]
            watching.discard(watcher)
            if not watching:
                del self._watchers[org][run_id]
            await asyncio.shield(self._tune(org))

    def close(self) -> None:
        """End all streams; clients go on elsewhere."""
        self._closed = True
        for runs in self._watchers.values():
            for watching in runs.values():
                for watcher in watching:
                    watcher.leave()

    async def _tune(self, org: UUID) -> None:
        """Listen while somebody watches."""
        async with self._locks[org]:
            wanted = self._counts[org] > 0
            if wanted and org not in self._stops:
                self._stops[org] = await self._bus.listen(
                    live(org.hex), lambda _subject, data: self._rang(org, data)
                )
            elif not wanted and (stop := self._stops.pop(org, None)) is not None:
                await stop()

    def _rang(self, org: UUID, data: bytes) -> None:
        try:
            advanced = decode_live(data).runs
        except msgspec.MsgspecError:
            return  # a ring of a version to come; streams look by themselves after a while
        watched = self._watchers[org]
        for run_id, _ in advanced:
            for watcher in watched.get(run_id, ()):
                watcher.news.set()
