"""Turns: so many at a time, and an organisation that asks a lot waits behind those that do not."""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Turns:
    """`size` turns; those who wait get theirs by organisation, round robin.

    When all of them are held, an organisation that holds none gets one nevertheless, as long as
    fewer than twice as many are held: whoever has code that runs for long keeps itself waiting,
    and nobody else.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._most = -size
        self._held = Counter[str]()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, org: str) -> None:
        if self._may(org):
            self._give(org)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(org, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(org)
            raise

    def give_back(self, org: str) -> None:
        self._free += 1
        self._held[org] -= 1
        if not self._held[org]:
            del self._held[org]
        self._serve()

    def _may(self, org: str) -> bool:
        return self._free > 0 or (self._free > self._most and not self._held[org])

    def _give(self, org: str) -> None:
        self._free -= 1
        self._held[org] += 1

    def _serve(self) -> None:
        """Give the turns that there are to those who wait."""
        for org in list(self._waiting):
            if self._free <= self._most:
                return
            queue = self._waiting[org]
            while queue and queue[0].done():
                queue.popleft()  # nobody waits for it any longer
            if queue and self._may(org):
                self._give(org)
                queue.popleft().set_result(None)
                del self._waiting[org]
                if queue:
                    self._waiting[org] = queue  # at the end: the others come first
            elif not queue:
                del self._waiting[org]
