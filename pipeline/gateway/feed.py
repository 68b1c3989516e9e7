"""Who watches what: doorbells of the bus, handed on to open streams.

There is one subscription for each organisation that somebody watches, and none when nobody does.
A ring says that there is news of a run, or for a user, nothing more: whoever watches reads what it
is from the store.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from pipeline import telemetry
from pipeline.bus.port import Bus
from pipeline.gateway.problems import Refusal

MOST = 2_000
MOST_OF_ONE = 200
"""Open streams of a process, and of one organisation in it."""


T = TypeVar("T")
"""What is watched: the id of a run, the name of a user."""


class Watcher:
    """Somebody who watches. `news` is set when there may be some."""

    __slots__ = ("gone", "news")

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.gone = False

    def leave(self) -> None:
        """End the stream."""
        self.gone = True
        self.news.set()


class Feed(Generic[T]):
    """The watchers of this process.

    `subject` is where an organisation is told of, `read` gives what a ring is about.
    """

    def __init__(
        self, bus: Bus, subject: Callable[[str], str], read: Callable[[bytes], Iterable[T]]
    ) -> None:
        self._bus = bus
        self._subject = subject
        self._read = read
        self._watchers: dict[UUID, dict[T, set[Watcher]]] = defaultdict(dict)
        self._counts: dict[UUID, int] = defaultdict(int)
        self._stops: dict[UUID, Callable[[], Awaitable[None]]] = {}
        self._locks: dict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False

    @asynccontextmanager
    async def watch(self, org: UUID, topic: T) -> AsyncIterator[Watcher]:
        """Watch something. Refuses (429, 503) when too many watch, or when the process stops."""
        if self._closed:
            raise Refusal(503, "draining", "This process stops.", headers={"retry-after": "1"})
        if self._counts[org] >= MOST_OF_ONE or sum(self._counts.values()) >= MOST:
            raise Refusal(
                429, "too_many_streams", "Too many streams are open.", headers={"retry-after": "5"}
            )
        watcher = Watcher()
        self._counts[org] += 1
        self._watchers[org].setdefault(topic, set()).add(watcher)
        telemetry.SSE_CLIENTS.inc()
        try:
            await self._tune(org)
            yield watcher
        finally:
            telemetry.SSE_CLIENTS.dec()
            self._counts[org] -= 1
            watching = self._watchers[org][topic]
            watching.discard(watcher)
            if not watching:
                del self._watchers[org][topic]
            await asyncio.shield(self._tune(org))

    def close(self) -> None:
        """End all streams; clients go on elsewhere."""
        self._closed = True
        for topics in self._watchers.values():
            for watching in topics.values():
                for watcher in watching:
                    watcher.leave()

    async def _tune(self, org: UUID) -> None:
        """Listen while somebody watches."""
        async with self._locks[org]:
            wanted = self._counts[org] > 0
            if wanted and org not in self._stops:
                self._stops[org] = await self._bus.listen(
                    self._subject(org.hex), lambda _subject, data: self._rang(org, data)
                )
            elif not wanted and (stop := self._stops.pop(org, None)) is not None:
                await stop()

    def _rang(self, org: UUID, data: bytes) -> None:
        try:
            topics = self._read(data)
        except msgspec.MsgspecError:
            return  # a ring of a version to come; streams look by themselves after a while
        watched = self._watchers[org]
        for topic in topics:
            for watcher in watched.get(topic, ()):
                watcher.news.set()
