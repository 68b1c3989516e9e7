"""Reading from a bus, as its tests do."""

from __future__ import annotations

import asyncio

from pipeline.bus.port import Message, Subscription


async def received(reader: Subscription, count: int, within: float = 10.0) -> list[Message]:
    """At least so many messages, within so many seconds."""
    messages: list[Message] = []
    async with asyncio.timeout(within):
        while len(messages) < count:
            messages += await reader.batch()
    return messages
