"""Where the demo's workflows send their notifications: an HTTP server that keeps count."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import uvicorn

from pipeline.ops import QuietServer, Receive, Scope, Send, open_socket

SAMPLES = 10_000
SHOWN = 6
_MOST_BYTES = 1_000_000


class Receiver:
    """Notifications by path and id. `late` are the last times from placing to the first step."""

    def __init__(self) -> None:
        self._listener = open_socket("127.0.0.1", 0)
        config = uvicorn.Config(
            self, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None
        self.counts: dict[str, Counter[str]] = {}
        self.late: deque[float] = deque(maxlen=SAMPLES)
        self.last: deque[tuple[float, str]] = deque(maxlen=SHOWN)

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._listener]))

    async def close(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def received(self, path: str) -> int:
        """How many different things were notified at a path."""
        return len(self.counts.get(path, ()))

    def repeated(self) -> int:
        """Notifications that came more than once: effects are at least once."""
        return sum(count - 1 for ids in self.counts.values() for count in ids.values() if count > 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > _MOST_BYTES:
                break
        status = self._take(scope["path"], bytes(body))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _take(self, path: str, body: bytes) -> int:
        try:
            told = orjson.loads(body)
            name, text = str(told["id"]), str(told["text"])
        except (ValueError, KeyError, TypeError):
            return 400
        self.counts.setdefault(path, Counter())[name] += 1
        self.last.append((time.time(), text))
        late = _milliseconds(told)
        if late is not None:
            self.late.append(late)
        return 204


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of the values lie; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _milliseconds(told: dict[str, Any]) -> float | None:
    try:
        placed = datetime.fromisoformat(told["placed_at"])
        checked = datetime.fromisoformat(told["checked_at"])
    except (KeyError, ValueError, TypeError):
        return None
    return (checked - placed).total_seconds() * 1_000
