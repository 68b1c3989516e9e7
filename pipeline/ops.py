"""The ops port of a process: /livez, /readyz and /metrics. No secrets, no organisation's data."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline import telemetry
from pipeline.listening import open_socket as open_socket

Checks = Mapping[str, Callable[[], Awaitable[str | None]]]
"""Name → a check that answers None, or what is wrong."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

CHECK_TIMEOUT = 2.0


class QuietServer(uvicorn.Server):
    """uvicorn, but signals are the business of whoever serves the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Ops:
    """Answers about the health of this process. `draining` makes it unready."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self.draining = False

    async def state(self) -> dict[str, str]:
        """Check → "ok", or what is wrong."""
        found: dict[str, str] = {}
        for name, check in self._checks.items():
            try:
                problem = await asyncio.wait_for(check(), CHECK_TIMEOUT)
            except TimeoutError:
                problem = f"no answer within {CHECK_TIMEOUT:g} s"
            found[name] = problem or "ok"
        if self.draining:
            found["process"] = "draining"
        return found

    async def answer(self, path: str) -> tuple[int, str, bytes] | None:
        """Status, content type and body for a path of the ops port."""
        match path:
            case "/livez":
                return 200, "application/json", b'{"status":"ok"}'
            case "/readyz":
                state = await self.state()
                ready = all(value == "ok" for value in state.values())
                body = {"status": "ok" if ready else "unready", "checks": state}
                return 200 if ready else 503, "application/json", orjson.dumps(body)
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(telemetry.METRICS)
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of the ops port."""
        if scope["type"] != "http":
            return
        found = None
        if scope["method"] in ("GET", "HEAD"):
            found = await self.answer(scope["path"])
        status, kind, body = found or (404, "application/json", b'{"status":"not found"}')
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class OpsServer:
    """Serves `ops` on its own port until closed."""

    def __init__(self, ops: Ops, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            ops, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._listener]))

    async def close(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
