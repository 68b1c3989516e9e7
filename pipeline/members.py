"""Who else is there, and which partitions are mine.

Processes of a vertex ring `pf.member.<vertex>` twice a second. Each computes from those it heard
lately who holds which partition (rendezvous hashing), so nobody is elected and nothing is stored.
Two processes may disagree for a moment; that costs a conflict or two and nothing else, because the
journal's primary key is the only lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from hashlib import blake2b
from uuid import uuid4

from pipeline.bus.port import Bus
from pipeline.bus.subjects import PARTITIONS, member

BEAT = 0.5
"""Seconds between two rings."""

SILENCE = 2.0
"""Seconds after which a silent member is taken for dead."""

_JOIN, _LEAVE = b"+", b"-"


class Members:
    """The living processes of one vertex. `changed` is called when they are others than before."""

    def __init__(self, bus: Bus, vertex: str, changed: Callable[[], None]) -> None:
        self.me = uuid4().hex
        self._bus = bus
        self._subject = member(vertex)
        self._changed = changed
        self._heard: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def partitions(self) -> frozenset[int]:
        """The partitions that this process holds."""
        return share(self.me, {self.me, *self._heard})

    async def start(self) -> None:
        self._unlisten = await self._bus.listen(self._subject, self._hear)
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Say goodbye, so that the others take over at once."""
        if self._task is not None:
            self._task.cancel()
            await self._unlisten()
            self._bus.ring(self._subject, _LEAVE + self.me.encode())

    def _hear(self, _subject: str, data: bytes) -> None:
        who = data[1:].decode("ascii", "replace")
        if who == self.me:
            return
        if data[:1] == _LEAVE:
            if self._heard.pop(who, None) is not None:
                self._changed()
            return
        new = who not in self._heard
        self._heard[who] = asyncio.get_running_loop().time()
        if new:
            self._ring()
            self._changed()

    def _ring(self) -> None:
        self._bus.ring(self._subject, _JOIN + self.me.encode())

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._ring()
            await asyncio.sleep(BEAT)
            dead = [who for who, at in self._heard.items() if loop.time() - at > SILENCE]
            for who in dead:
                del self._heard[who]
            if dead:
                self._changed()


def share(me: str, members: Collection[str]) -> frozenset[int]:
    """The partitions of `me` among `members`: each goes to the member with the highest hash."""
    return frozenset(
        partition
        for partition in range(PARTITIONS)
        if max(members, key=lambda who: _weight(who, partition)) == me
    )


def _weight(who: str, partition: int) -> bytes:
    return blake2b(f"{who}:{partition}".encode(), digest_size=8).digest()
