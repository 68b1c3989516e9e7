"""What was found out a moment ago: kept for a while, asked for once however many want it.

A thing that is still wanted when half of its time is over is asked for anew while the old one
serves, so nobody waits on the hot path. Nothing is ever older than its time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
Thing = TypeVar("Thing")


class Cache(Generic[Name, Thing]):
    """Things by name, for `seconds`, at most `most` of them.

    That nothing was found is kept for `seconds_of_nothing`.
    """

    def __init__(self, seconds: float, most: int, *, seconds_of_nothing: float = 0.0) -> None:
        self._seconds = seconds
        self._seconds_of_nothing = seconds_of_nothing
        self._most = most
        self._things: OrderedDict[Name, tuple[float, Thing | None]] = OrderedDict()
        self._asking: dict[Name, asyncio.Task[Thing | None]] = {}

    async def get(self, name: Name, ask: Callable[[], Awaitable[Thing | None]]) -> Thing | None:
        """The thing, from memory or from `ask`."""
        kept = self._things.get(name)
        if kept is not None:
            left = kept[0] - _now()
            if left > 0:
                if kept[1] is not None and left < self._seconds / 2:
                    self._ask(name, ask)
                return kept[1]
        return await asyncio.shield(self._ask(name, ask))

    def clear(self) -> None:
        """Something changed: what is kept, or being asked for now, may be old."""
        self._things.clear()
        self._asking.clear()

    def _ask(
        self, name: Name, ask: Callable[[], Awaitable[Thing | None]]
    ) -> asyncio.Task[Thing | None]:
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.ensure_future(self._find(name, ask))
            task.add_done_callback(lambda done: self._asked(name, done))
        return task

    async def _find(self, name: Name, ask: Callable[[], Awaitable[Thing | None]]) -> Thing | None:
        asked_at, task = _now(), asyncio.current_task()
        thing = await ask()
        seconds = self._seconds if thing is not None else self._seconds_of_nothing
        if self._asking.get(name) is task and seconds:  # otherwise `clear` came in between
            self._things[name] = (asked_at + seconds, thing)
            self._things.move_to_end(name)
            if len(self._things) > self._most:
                self._things.popitem(last=False)
        return thing

    def _asked(self, name: Name, task: asyncio.Task[Thing | None]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]
        if not task.cancelled():
            task.exception()  # whoever waits hears of it; nobody may be waiting


def _now() -> float:
    return asyncio.get_running_loop().time()
