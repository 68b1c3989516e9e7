"""Work that takes long: so much of it at once, and given up when it takes too long.

Dry runs, migrations and reruns that look far below compute for seconds. Whoever asks for many of
them waits for a turn, and is sent away if that takes long; webhooks and starts never wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

from pipeline.gateway.problems import Refusal

T = TypeVar("T")

AT_ONCE = 2
"""Turns of a process; each takes a thread."""

OF_ONE = 1
"""Turns that one organisation has at once in a process."""

LONGEST_QUEUE = 5.0
"""Seconds to wait for a turn."""

GRACE = 5.0
"""Seconds that work has to notice by itself that it takes too long, and to tell what it has."""

RETRY_AFTER = "5"


class Turns:
    """The turns of one process."""

    def __init__(self, at_once: int = AT_ONCE, of_one: int = OF_ONE) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._of_one = of_one
        self._orgs: dict[UUID, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def turn(self, org: UUID) -> AsyncIterator[None]:
        """Waits until it is one's turn; 503 if that takes too long."""
        mine, wanted = self._orgs.get(org, (asyncio.Semaphore(self._of_one), 0))
        self._orgs[org] = mine, wanted + 1
        held: list[asyncio.Semaphore] = []
        try:
            try:
                async with asyncio.timeout(LONGEST_QUEUE):
                    for each in (mine, self._free):
                        await each.acquire()
                        held.append(each)
            except TimeoutError:
                raise _busy() from None
            yield
        finally:
            for each in held:
                each.release()
            wanted = self._orgs[org][1] - 1
            if wanted:
                self._orgs[org] = mine, wanted
            else:
                del self._orgs[org]

    async def take(
        self, org: UUID, seconds: float, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """What `work` gives, in a turn. It is to end by itself after `seconds`; 422 if it does not
        even then. The turn lasts until the work ends.
        """

        async def held() -> T:
            async with self.turn(org):
                begun.set()
                return await work()

        begun = asyncio.Event()
        task = asyncio.create_task(held())
        task.add_done_callback(_look_at)
        task.add_done_callback(lambda _: begun.set())
        await begun.wait()
        try:
            async with asyncio.timeout(seconds + GRACE):
                return await asyncio.shield(task)
        except TimeoutError:
            raise Refusal(
                422,
                "took_too_long",
                f"This took longer than {seconds:g} s (PERMAFLOW_DRY_RUN_TIMEOUT), and was given "
                "up. Ask for fewer events, or for a smaller document.",
            ) from None


def _busy() -> Refusal:
    detail = (
        "Other dry runs, migrations or reruns of your organisation, or of others, are being "
        "worked on. "
        "Try again in a few seconds."
    )
    return Refusal(503, "busy", detail, headers={"retry-after": RETRY_AFTER})


def _look_at(task: asyncio.Task[T]) -> None:
    """Whoever waits hears of it; nobody may be waiting any more."""
    if not task.cancelled():
        task.exception()
