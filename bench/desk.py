"""A desk: what a runner reads and writes instead of a bus, in the same process.

It carries one message at a time, so that nothing but the runner itself is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import cast

from pipeline.bus.port import Bus, Channel, Message, Subscription


class Desk:
    """Those parts of `pipeline.bus.port.Bus` that a runner uses."""

    def __init__(self) -> None:
        self._tray = _Tray()
        self._answer: asyncio.Future[bytes] | None = None

    @property
    def bus(self) -> Bus:
        return cast(Bus, self)

    async def ask(self, data: bytes) -> bytes:
        """What the runner sends when it has been given this."""
        self._answer = asyncio.get_running_loop().create_future()
        self._tray.messages.put_nowait(_Sheet(data))
        return await self._answer

    def send(self, subject: str, data: bytes, key: str | None = None) -> asyncio.Future[None]:
        receipt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        receipt.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(data)
        return receipt

    async def subscribe(self, channel: Channel, credit: int) -> Subscription:
        return cast(Subscription, self._tray)

    async def listen(
        self, subject: str, answer: Callable[[str, bytes], Awaitable[None] | None]
    ) -> Callable[[], Awaitable[None]]:
        async def stop() -> None:
            return

        return stop


class _Tray:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[_Sheet | None] = asyncio.Queue()

    async def batch(self) -> list[Message]:
        message = await self.messages.get()
        return [] if message is None else [message]

    def release(self, count: int = 1) -> None:
        return

    async def close(self) -> None:
        self.messages.put_nowait(None)


class _Sheet:
    """Never delivered twice, so there is nothing to do about it."""

    subject = "desk"
    deliveries = 1
    again = False

    def __init__(self, data: bytes) -> None:
        self.data = data

    def ack(self) -> None:
        return

    def nak(self, delay: timedelta) -> None:
        return

    def term(self) -> None:
        return

    def hold(self) -> None:
        return

    def keep(self) -> None:
        return
