"""One HTTP connection: uvicorn's, with limits for what comes before a request is one.

A body is limited by whoever reads it (`bodies.py`). Its head, which anybody may send, is limited
here: in size (431) and in the time it takes, which also ends connections that say nothing at all.
So is the number of connections: one too many takes the place of the one that has waited for a
request for the longest, and gets 503 if all are at work.

WebSocket is the one protocol that a connection can be upgraded to. Any other is ignored (RFC 9110,
7.8): the request is answered as it came, with its body.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 65_536
"""Bytes of the address and the headers of a request, trailers included."""

SLOWEST_HEAD = 20.0
"""Seconds from the first byte of a request, or from the connection, to the end of its headers."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)


_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-length: 0\r\n\r\n"
)


def limited(most: int) -> type[Connection]:
    """The connections of one server: at most so many at a time."""

    class Limited(Connection):
        pass

    Limited.most = most
    Limited.idle = {}
    return Limited


class _TooLargeError(Exception):
    """The parser hands this on as an error of its own."""


class _Parser(httptools.HttpRequestParser):
    """Reads requests whose `Upgrade` is ignored to their end.

    llhttp ends one behind its head. So it reads the head again, without that header.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._connection = connection

    def feed_data(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        rest = memoryview(data)
        while rest:
            try:
                super().feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._connection.wants_websocket():
                    raise
                rest = rest[upgrade.args[0] :]
            super().feed_data(self._connection.head_without_upgrade())


class Connection(HttpToolsProtocol):
    """Closes what sends too large a head, or too slow a one. `idle` are those of a server that have
    no request at work, in the order in which they became so.
    """

    most: ClassVar[int] = 10_000
    idle: ClassVar[dict[Connection, None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self._unparsed = 0
        self._size = 0
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._wait()
        self.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle.pop(self, None)
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
            self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MAX_HEAD:
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.idle.pop(self, None)
        self._wait_no_more()
        self._unparsed = 0
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline and not self.transport.is_closing():
            self.idle[self] = None
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self._size > MAX_HEAD:
            self._refuse()
        else:
            super().send_400_response(msg)

    def wants_websocket(self) -> bool:
        """Of a request for another protocol: whether it is this one."""
        return bool(self._get_upgrade() == b"websocket")

    def head_without_upgrade(self) -> bytes:
        """The head that was read last. Raises `HttpParserError` for CONNECT, which has nothing else
        that could be answered.
        """
        method = self.scope["method"].encode()
        if method == b"CONNECT":
            raise httptools.HttpParserError("This is no proxy.")
        version = self.scope["http_version"].encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % pair for pair in self.headers if pair[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _should_upgrade(self) -> bool:
        """Asked where the parser says that it stops: uvicorn does nothing then. It upgrades to
        WebSocket once the parser has told it to.
        """
        return True

    def _make_room(self) -> bool:
        for other in self.idle:
            del self.idle[other]
            self.connections.discard(other)
            other.transport.abort()
            return True
        return False

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_HEAD:
            raise _TooLargeError

    def _refuse(self) -> None:
        self._unparsed = 0
        if not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(SLOWEST_HEAD, self._too_slow)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self._waiting = None
        self.transport.close()
