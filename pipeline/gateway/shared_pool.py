"""The part of the connection pool that everything but starting runs shares.

However many people list and read, a connection stays free for webhooks and starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar
from uuid import UUID

from permaflow.errors import StoreUnavailableError
from pipeline.store.database import Database, Work

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_QUEUE = 5.0
"""Seconds to wait for a turn."""


class SharedPool:
    """Runs at most `size` transactions at a time; see `Database.run` and `run_as`."""

    def __init__(self, database: Database, size: int) -> None:
        self._database = database
        self._free = asyncio.Semaphore(max(1, size))

    async def run(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(connection, …)` answers, where the organisation is not known yet."""
        async with self._turn():
            return await self._database.run(work, *args, **kwargs)

    async def run_as(self, org: UUID, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(connection, …)` answers, in a transaction of one organisation."""
        async with self._turn():
            return await self._database.run_as(org, work, *args, **kwargs)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Waits until it is one's turn. Raises `StoreUnavailableError` if that takes too long."""
        try:
            async with asyncio.timeout(LONGEST_QUEUE):
                await self._free.acquire()
        except TimeoutError:
            raise StoreUnavailableError("Too many wait for the database.") from None
        try:
            yield
        finally:
            self._free.release()
