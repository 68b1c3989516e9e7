"""The part of the connection pool that everything but starting runs shares.

However many people list and read, a connection stays free for webhooks and starts.
"""

from __future__ import annotations

import asyncio
from typing import ParamSpec, TypeVar
from uuid import UUID

from pipeline.store.database import Database, Work

P = ParamSpec("P")
T = TypeVar("T")


class SharedPool:
    """Runs at most `size` transactions at a time; see `Database.run` and `run_as`."""

    def __init__(self, database: Database, size: int) -> None:
        self._database = database
        self._free = asyncio.Semaphore(max(1, size))

    async def run(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(connection, …)` answers, where the organisation is not known yet."""
        async with self._free:
            return await self._database.run(work, *args, **kwargs)

    async def run_as(self, org: UUID, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(connection, …)` answers, in a transaction of one organisation."""
        async with self._free:
            return await self._database.run_as(org, work, *args, **kwargs)
