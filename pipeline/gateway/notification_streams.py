"""/notifications/v1/stream and /ws: what a user is told, as it is told.

Without the number of a last one, a stream begins with what the user has not read; then, and with a
number, it goes on with what came after, in order, and each exactly once. The number (`seq`, the id
of the event) is what a client that was cut off sends as `Last-Event-ID`, or as `last_event_id` in
the query.

Programs send their key in `Authorization`. A browser cannot do that for a WebSocket; it offers two
subprotocols, `permaflow.notifications.v1`, which is taken, and `permaflow.key.<its key>`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from uuid import UUID

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from permaflow.errors import PermaflowError
from pipeline.gateway import event_stream
from pipeline.gateway.auth import ADMIN, Guard, bearer, caller_of
from pipeline.gateway.event_stream import EventStream, event, news
from pipeline.gateway.feed import Feed, Watcher
from pipeline.gateway.notifications import user_of, view
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.store import notifications
from pipeline.store.notifications import Notification

PROTOCOL = "permaflow.notifications.v1"
WRITE = "notifications:write"
SLICE = 200
REVOKED = 4401
GOING_AWAY = 1001
TOO_SLOW = 1013

_number = re.compile(r"\d{1,18}", re.ASCII)


class NotificationStreams:
    """The handlers."""

    def __init__(self, ports: Ports, feed: Feed[str], guard: Guard) -> None:
        self._ports = ports
        self._feed = feed
        self._guard = guard

    async def stream_notifications(self, request: Request) -> Response:
        """Watch what a user is told: server-sent events, from the unread on or `Last-Event-ID`."""
        org, user, last = _wanted(request)
        key = bearer(request)

        async def texts(watcher: Watcher) -> AsyncIterator[bytes]:
            yield event_stream.RETRY
            async for told in self._follow(org, user, last, key, watcher):
                yield _event(told) if told else event_stream.PING

        return EventStream(self._feed.watch(org, user), texts)

    async def serve_socket(self, socket: WebSocket) -> None:
        """The same over a WebSocket: each notification is a message of JSON."""
        org, user, last = _wanted(socket)
        key = bearer(socket)
        async with self._feed.watch(org, user) as watcher:
            offered = socket.scope.get("subprotocols", [])
            await socket.accept(PROTOCOL if PROTOCOL in offered else None)
            leaving = asyncio.create_task(self._listen(socket, watcher, org, user))
            code = GOING_AWAY
            try:
                async with aclosing(self._follow(org, user, last, key, watcher)) as following:
                    async for told in following:
                        if told is not None:
                            async with asyncio.timeout(event_stream.SLOWEST_READER):
                                await socket.send_text(view(told).model_dump_json())
                if not watcher.gone:
                    code = REVOKED
            except TimeoutError:
                code = TOO_SLOW
            except WebSocketDisconnect:
                return
            finally:
                leaving.cancel()
            if socket.client_state is WebSocketState.CONNECTED:
                await socket.close(code)

    async def _listen(self, socket: WebSocket, watcher: Watcher, org: UUID, user: str) -> None:
        """What the client says: `{"read": "<id>"}`, for which its key needs the scope
        `notifications:write`. Anything else is not listened to.
        """
        may_mark = {WRITE, ADMIN} & set(caller_of(socket).scopes)
        try:
            while True:
                text = await socket.receive_text()
                try:
                    said = orjson.loads(text)
                    read = UUID(said["read"])
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue
                if not may_mark:
                    continue
                try:
                    await self._ports.pool.run_as(org, notifications.mark, org, user, read)
                except PermaflowError:
                    continue
        except (WebSocketDisconnect, RuntimeError, KeyError):
            watcher.leave()

    async def _follow(
        self, org: UUID, user: str, last: int | None, key: str, watcher: Watcher
    ) -> AsyncGenerator[Notification | None]:
        """What the user was told, and None now and then while there is nothing. Ends when nobody
        watches any more, and when the key is no longer good.
        """
        pool, clock = self._ports.pool, asyncio.get_running_loop().time
        checked_at = sent_at = clock()
        if last is None:
            last = await pool.run_as(org, notifications.last, org, user)
            seen = 0
            while True:
                unread = await pool.run_as(org, notifications.unread, org, user, seen, SLICE)
                for told in unread:
                    if told.seq <= last:
                        yield told
                if len(unread) < SLICE or unread[-1].seq >= last:
                    break
                seen = unread[-1].seq
        while not watcher.gone:
            watcher.news.clear()
            fresh = await pool.run_as(org, notifications.after, org, user, last, SLICE)
            for told in fresh:
                last = told.seq
                yield told
            if fresh:
                sent_at = clock()
                continue
            pause = min(event_stream.LOOK_AGAIN, event_stream.HEARTBEAT - (clock() - sent_at))
            if not await news(watcher, pause) and clock() - sent_at >= event_stream.HEARTBEAT:
                sent_at = clock()
                yield None
            if clock() - checked_at >= event_stream.CHECK_KEY:
                checked_at = clock()
                if await self._guard.find(key) is None:
                    return


def _wanted(connection: HTTPConnection) -> tuple[UUID, str, int | None]:
    """Organisation, user, and the number of the last notification that the client has."""
    caller = caller_of(connection)
    user = user_of(connection, connection.query_params.get("user"))
    query = connection.query_params.get("last_event_id")
    text = connection.headers.get("last-event-id") or query
    if not text:
        return caller.org, user, None
    if not _number.fullmatch(text):
        raise Refusal(400, "bad_parameter", f"{text[:50]!r} is no number of a notification.")
    return caller.org, user, int(text)


def _event(told: Notification) -> bytes:
    return event(str(told.seq), "notification", view(told).model_dump_json().encode())
