"""Sleeping until something is due, or less if a doorbell tells of something earlier."""

from __future__ import annotations

import asyncio
import time


class Alarm:
    """For one loop: `look` before it looks what is due, `sleep` after it; anybody may `hear`."""

    def __init__(self, look_every: float) -> None:
        self._look_every = look_every
        self._earlier = asyncio.Event()
        self._next = 0.0

    def look(self) -> None:
        """From here on what is heard counts for the next sleep."""
        self._next = time.monotonic() + self._look_every

    def hear(self, seconds: float) -> None:
        """Something is due in so many seconds."""
        due = time.monotonic() + seconds
        if due < self._next:
            self._next = due
            self._earlier.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep so long; less if something earlier was heard of since `look`."""
        self._next = min(self._next, time.monotonic() + seconds) if seconds else 0.0
        while (left := self._next - time.monotonic()) > 0:
            self._earlier.clear()
            try:
                async with asyncio.timeout(left):
                    await self._earlier.wait()
            except TimeoutError:
                return
