"""Turns: so many at a time, and an organisation that asks a lot waits behind those that do not."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """At most `size` hold a turn; those who wait get theirs by organisation, round robin."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, org: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(org, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            org = next(iter(self._waiting))
            queue = self._waiting.pop(org)
            turn = queue.popleft()
            if queue:
                self._waiting[org] = queue  # at the end: the others come first
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
