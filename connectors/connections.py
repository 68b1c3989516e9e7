"""HTTP connections that are kept for a while and lent to one request at a time.

httpcore's own pool loses a connection when a request is cancelled while it waits for one, and with
enough of them it stands still. Here a request that ends in any other way than well closes its
connection, and there is nothing to lose.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpcore


@dataclass(frozen=True, slots=True)
class _Kept:
    origin: httpcore.Origin
    connection: httpcore.AsyncHTTPConnection
    until: float


class Connections:
    """At most `most` are open at once; of those, at most `idle` wait for `expiry` seconds."""

    def __init__(
        self,
        network: httpcore.AsyncNetworkBackend,
        trust: ssl.SSLContext,
        *,
        most: int,
        idle: int = 64,
        expiry: float = 15.0,
    ) -> None:
        self._network = network
        self._trust = trust
        self._idle = idle
        self._expiry = expiry
        self._places = asyncio.Semaphore(most)
        self._kept: deque[_Kept] = deque()

    @asynccontextmanager
    async def lend(self, origin: httpcore.Origin) -> AsyncIterator[httpcore.AsyncHTTPConnection]:
        """A connection to `origin`, for one request; waits while too many are lent."""
        async with self._places:
            await self._drop_old()
            connection = await self._find(origin) or httpcore.AsyncHTTPConnection(
                origin, self._trust, self._expiry, network_backend=self._network
            )
            try:
                yield connection
            finally:
                if connection.is_available() and not connection.is_closed():
                    now = asyncio.get_running_loop().time()
                    self._kept.append(_Kept(origin, connection, now + self._expiry))
                else:
                    await connection.aclose()

    async def aclose(self) -> None:
        """Close those that wait; those that are lent are closed when they come back."""
        self._idle = 0
        await self._drop_old()

    async def _find(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection | None:
        """The one of this origin that was used last, if the other side has not closed it."""
        for kept in [kept for kept in reversed(self._kept) if kept.origin == origin]:
            try:
                self._kept.remove(kept)
            except ValueError:  # taken by another request while one was being closed
                continue
            if not kept.connection.has_expired():
                return kept.connection
            await kept.connection.aclose()
        return None

    async def _drop_old(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._kept and (len(self._kept) > self._idle or self._kept[0].until <= now):
            await self._kept.popleft().connection.aclose()
