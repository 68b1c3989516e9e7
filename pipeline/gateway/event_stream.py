"""Server-sent events, whatever they tell of: the response, its heartbeat, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.gateway.feed import Watcher

HEARTBEAT = 15.0
LOOK_AGAIN = 5.0
CHECK_KEY = 30.0
SLOWEST_READER = 30.0
RETRY = b"retry: 2000\n\n"
PING = b": ping\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """A stream that ends with its texts, with its client, or with this process."""

    def __init__(
        self,
        watching: AbstractAsyncContextManager[Watcher],
        texts: Callable[[Watcher], AsyncIterator[bytes]],
    ) -> None:
        super().__init__()
        self._watching = watching
        self._texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._watching as watcher:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            leaving = asyncio.create_task(_leave_with(receive, watcher))
            try:
                async for text in self._texts(watcher):
                    async with asyncio.timeout(SLOWEST_READER):
                        await send({"type": "http.response.body", "body": text, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                pass  # the client reads no more; it comes again with the id of its last event
            finally:
                leaving.cancel()


def event(event_id: str, name: str, data: bytes) -> bytes:
    """One event; `data` is JSON, and so one line."""
    return f"id: {event_id}\nevent: {name}\ndata: ".encode() + data + b"\n\n"


async def news(watcher: Watcher, within: float) -> bool:
    """Waits for a ring; False if there was none."""
    try:
        async with asyncio.timeout(max(0.01, within)):
            await watcher.news.wait()
    except TimeoutError:
        return False
    return True


async def _leave_with(receive: Receive, watcher: Watcher) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    watcher.leave()
