"""Starting runs in groups: whatever arrives while a transaction commits goes into the next one.

The first request of an organisation starts a transaction at once; nothing waits to be collected.
So one commit serves as many requests as came during the one before, and a request waits for two
commits at most. NATS is told afterwards, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from permaflow.errors import PermaflowError, StoreUnavailableError
from pipeline import starter
from pipeline.bus.port import Bus
from pipeline.store import starts
from pipeline.store.database import Connection, Database
from pipeline.store.starts import Duplicate, StartRequest, StartResult

MOST_TOGETHER = 500
MOST_BYTES_TOGETHER = 16_000_000
MOST_WAITING = 10_000
MOST_BYTES_WAITING = 128_000_000
LONGEST_WAIT = 10.0


class Wanted(NamedTuple):
    """A run to start, unless one of these keys of earlier has started it already."""

    request: StartRequest
    earlier: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    wanted: Wanted
    size: int
    answer: asyncio.Future[StartResult]


class StartBatcher:
    """Starts runs; each organisation has one transaction at a time."""

    def __init__(self, database: Database, bus: Bus, inline_bytes: int) -> None:
        self._database = database
        self._bus = bus
        self._inline_bytes = inline_bytes
        self._queues: dict[UUID, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._bytes = 0

    async def start(self, request: StartRequest, earlier: bytes | None = None) -> StartResult:
        """What became of the request, once it is committed.

        Raises `StoreUnavailableError` when too much waits already or the store does not answer.
        """
        size = len(request.input or b"")
        if self._count >= MOST_WAITING or self._bytes + size > MOST_BYTES_WAITING:
            raise StoreUnavailableError("Too many runs wait to be stored.")
        answer: asyncio.Future[StartResult] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(Wanted(request, earlier), size, answer)
        self._count += 1
        self._bytes += size
        queue = self._queues.get(request.org)
        if queue is None:
            self._queues[request.org] = deque((waiting,))
            task = asyncio.create_task(self._serve(request.org))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            queue.append(waiting)
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                return await answer
        except TimeoutError:
            raise StoreUnavailableError("The database took too long.") from None

    async def close(self) -> None:
        """Waits for what has been taken in."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LONGEST_WAIT)

    async def _serve(self, org: UUID) -> None:
        queue = self._queues[org]
        while queue:
            await self._commit(org, self._take(queue))
        del self._queues[org]

    def _take(self, queue: deque[_Waiting]) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size = 0
        while queue and len(taken) < MOST_TOGETHER:
            if taken and size + queue[0].size > MOST_BYTES_TOGETHER:
                break
            waiting = queue.popleft()
            self._count -= 1
            self._bytes -= waiting.size
            size += waiting.size
            if not waiting.answer.done():
                taken.append(waiting)
        return taken

    async def _commit(self, org: UUID, taken: Sequence[_Waiting]) -> None:
        if not taken:
            return
        wanted = [waiting.wanted for waiting in taken]
        try:
            results = await self._database.run_as(org, start, wanted, self._inline_bytes)
        except StoreUnavailableError as error:
            _fail(taken, error)
        except PermaflowError as error:
            # One request is at fault, and nothing was stored: each by itself.
            if len(taken) == 1:
                _fail(taken, error)
            else:
                for waiting in taken:
                    await self._commit(org, [waiting])
        except Exception as error:
            _fail(taken, error)
        else:
            starter.announce(self._bus, [each.request for each in wanted], results)
            for waiting, result in zip(taken, results, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(result)


async def start(
    connection: Connection, wanted: Sequence[Wanted], inline_bytes: int
) -> list[StartResult]:
    """Starts runs in the transaction of the connection; answers in the order of what is wanted."""
    keys = [each.earlier for each in wanted if each.earlier is not None]
    known = await starts.known(connection, keys) if keys else {}
    fresh = [each.request for each in wanted if each.earlier not in known]
    started = iter(await starts.start_runs(connection, fresh, inline_bytes=inline_bytes))
    return [
        Duplicate(known[each.earlier])
        if each.earlier is not None and each.earlier in known
        else next(started)
        for each in wanted
    ]


def _fail(taken: Sequence[_Waiting], error: Exception) -> None:
    for waiting in taken:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
