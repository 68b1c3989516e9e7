"""The outermost layer: an id for every request, its time and status, and the last resort.

An address that is not text, or has a NUL in it, is refused here: everything behind reads it as
text, in which all bytes that are none look alike, and the store takes no NUL.

Pure ASGI, because a hot path goes through here.
"""

from __future__ import annotations

import re
import time
from urllib.parse import unquote_to_bytes

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import telemetry
from pipeline.gateway.problems import BUG, REQUEST_ID, Refusal, problem_response, without_secrets
from pipeline.ids import new_id
from pipeline.telemetry import log

_SOUND = re.compile(rb"[A-Za-z0-9._:\-]{1,64}")
_HEADER = b"x-request-id"
_PERCENT = ord("%")
"""As a number, for which bytes are searched in a fifth of the time."""


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
            app: ASGIApp = _refused(scope) or self.app
            await app(scope, receive, send_with_id)
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


def _refused(scope: Scope) -> Response | None:
    """The answer to an address that cannot be read."""
    if _PERCENT not in scope["raw_path"] and _PERCENT not in scope["query_string"]:
        return None
    for place, raw in (("path", scope["raw_path"]), ("query", scope["query_string"])):
        try:
            if "\0" not in unquote_to_bytes(raw).decode():
                continue
            detail = f"The {place} of the address has a NUL (`%00`) in it."
        except UnicodeDecodeError:
            detail = f"What the {place} of the address has behind `%` is not UTF-8."
        return problem_response(Refusal(400, "bad_address", detail), scope)
    return None


def _route(scope: Scope) -> str:
    """The path as it was declared: one label, however many ids there are."""
    return getattr(scope.get("route"), "path", "unknown")
