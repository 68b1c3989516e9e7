"""Coroutines of plug-ins, each on a loop and in a thread of its own.

A plug-in may block where it should wait: then its own thread stands still, and nothing else. Who
asked is answered in time all the same. A thread cannot be stopped, so there are only so many; one
that never ends keeps no process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from permaflow.forms import DataSources, Option
from pipeline.gateway.problems import Refusal

T = TypeVar("T")
MOST_THREADS = 8


class Foreign:
    """The threads of plug-ins of one process."""

    def __init__(self) -> None:
        self.busy = 0
        """Threads that are at work. Only the loop of the gateway counts."""

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
        """What `work` gives. Raises whatever it raises, and `TimeoutError`; 503 if too many
        threads are at work.
        """
        if self.busy >= MOST_THREADS:
            raise Refusal(
                503,
                "busy",
                "Other options are being made, and take long. Try again in a few seconds.",
                headers={"retry-after": "5"},
            )
        call = _Call(work, seconds, asyncio.get_running_loop())
        self.busy += 1
        call.done.add_done_callback(self._ended)
        threading.Thread(target=call.run, name="plug-in", daemon=True).start()
        async with asyncio.timeout(seconds):
            return await asyncio.shield(call.done)

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self.busy -= 1
        done.exception()  # whoever waits hears of it; nobody may be waiting any more


class _Call(Generic[T]):
    """One coroutine in a thread; `done` belongs to the loop that asked."""

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._loop = loop
        self.done: asyncio.Future[T] = loop.create_future()

    def run(self) -> None:
        """In the thread: to the end, or until it is cancelled because it takes too long."""
        try:
            found = asyncio.run(asyncio.wait_for(self._work(), self._seconds))
        except BaseException as error:  # also what would end a process must end nothing but this
            self._tell(self._fail, _ordinary(error))
        else:
            self._tell(self.done.set_result, found)

    def _fail(self, error: Exception) -> None:
        self.done.set_exception(error)

    def _tell(self, tell: Callable[[Any], None], what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the gateway has ended meanwhile
            self._loop.call_soon_threadsafe(tell, what)


def _ordinary(error: BaseException) -> Exception:
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(type(error).__name__)


class FromAfar:
    """Implements `permaflow.forms.DataSources` for another thread than that of `sources`."""

    def __init__(self, sources: DataSources, loop: asyncio.AbstractEventLoop) -> None:
        self._sources = sources
        self._loop = loop

    async def datasources(self) -> Sequence[Option]:
        return await self._there(self._sources.datasources())

    async def attributes(self, datasource: str) -> Sequence[Option]:
        return await self._there(self._sources.attributes(datasource))

    async def _there(self, asked: Any) -> Sequence[Option]:
        found = asyncio.run_coroutine_threadsafe(asked, self._loop)
        options: Sequence[Option] = await asyncio.wrap_future(found)
        return options
