"""The outermost layer: an id for every request, its time and status, and the last resort.

Pure ASGI, because a hot path goes through here.
"""

from __future__ import annotations

import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import telemetry
from pipeline.gateway.problems import BUG, REQUEST_ID, Refusal, problem_response, without_secrets
from pipeline.ids import new_id
from pipeline.telemetry import log

_SOUND = re.compile(rb"[A-Za-z0-9._:\-]{1,64}")
_HEADER = b"x-request-id"


class Front:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                scope[REQUEST_ID] = _request_id(scope).decode()
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope[REQUEST_ID] = request_id.decode()
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (_HEADER, request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            log.exception(
                telemetry.REQUEST_FAILED,
                path=without_secrets(scope["path"]),
                request_id=scope[REQUEST_ID],
                error=repr(error),
            )
            if not status:
                response = problem_response(Refusal(500, "error", BUG), scope)
                await response(scope, receive, send_with_id)
        finally:
            route = _route(scope)
            telemetry.HTTP_REQUESTS.labels(route, str(status)).inc()
            telemetry.HTTP_SECONDS.labels(route).observe(time.perf_counter() - began)


def _request_id(scope: Scope) -> bytes:
    """The sender's, if it is a harmless one."""
    for name, value in scope["headers"]:
        if name == _HEADER and _SOUND.fullmatch(value):
            return bytes(value)
    return new_id().hex.encode()


def _route(scope: Scope) -> str:
    """The path as it was declared: one label, however many ids there are."""
    return getattr(scope.get("route"), "path", "unknown")
