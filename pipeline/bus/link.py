"""One lasting connection to NATS: it comes back by itself and subscribes again.

What is written in one turn of the event loop leaves in one system call. While the server is away
`write` drops and `connected` is false: whoever must not lose a message keeps it until a receipt
came (see `publish.py`) and sends it again when told that the link is up.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from permaflow.errors import BusError, BusUnavailableError
from pipeline import telemetry
from pipeline.bus.protocol import Handler, Parser, ProtocolError, pub
from pipeline.telemetry import log

RETRY_FIRST = 0.02
RETRY_MOST = 0.5
PING_EVERY = 5.0
CONNECT_TIMEOUT = 5.0
MANY_SUBJECTS = 10_000
NATS_PORT = 4222


def credentials(url: str) -> dict[str, str]:
    """The fields of CONNECT that a URL's user part asks for: a token, or a user and a password."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    if parts.password is None:
        return {"auth_token": unquote(parts.username)}
    return {"user": unquote(parts.username), "pass": unquote(parts.password)}


def connect_line(url: str, name: str) -> bytes:
    """What a client says first."""
    options = {
        "verbose": False,
        "pedantic": False,
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "name": name,
        "headers": True,
        "no_responders": True,
        **credentials(url),
    }
    return b"CONNECT " + json.dumps(options).encode() + b"\r\n"


def _parts(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"nats://{url}")


def _address(url: str) -> str:
    """Where a server is, without its credentials."""
    parts = _parts(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or NATS_PORT}"


class _Socket(asyncio.Protocol):
    """One TCP connection, from its INFO to its end. Told apart from the link, which outlives it."""

    def __init__(self, link: Link, url: str) -> None:
        self.link = link
        self.url = url
        self.transport: asyncio.Transport | None = None
        self.info: asyncio.Future[dict[str, Any]] = link.loop.create_future()
        self.first_pong: asyncio.Future[None] = link.loop.create_future()
        self.lost: asyncio.Future[None] = link.loop.create_future()
        self.refused = ""
        self.feed = Parser(link.handlers, self.control).feed
        self.pongs: deque[Callable[[], None]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.feed(data)
        except (ProtocolError, ValueError, IndexError) as error:
            log.warning(telemetry.BUS_PROTOCOL_BROKEN, reason=repr(error))
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.info, self.first_pong):
            if not waiting.done():
                waiting.set_exception(BusUnavailableError(self.refused or "NATS hung up."))
                waiting.exception()
        if not self.lost.done():
            self.lost.set_result(None)

    def control(self, verb: bytes, argument: bytes) -> None:
        match verb.upper():
            case b"PING":
                self.write(b"PONG\r\n")
            case b"PONG":
                if self.pongs:
                    self.pongs.popleft()()
            case b"INFO":
                info = json.loads(argument)
                self.link.max_payload = int(info.get("max_payload", self.link.max_payload))
                if not self.info.done():
                    self.info.set_result(info)
            case b"-ERR":
                self.refused = argument.decode("utf-8", "replace").strip("'")
                log.warning(telemetry.BUS_REFUSED, reason=self.refused)
            case _:
                raise ProtocolError(f"unknown verb {verb[:20]!r}")

    def ping(self, then: Callable[[], None]) -> None:
        self.pongs.append(then)
        self.write(b"PING\r\n")

    def write(self, chunk: bytes) -> None:
        if self.transport is not None:
            self.transport.write(chunk)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Link:
    """A connection to one of `servers` (a URL, or several with commas) that lasts.

    `on_up` is called after every connect, the first included, once subscriptions are in place.
    """

    def __init__(self, servers: str, name: str, tls: ssl.SSLContext | None = None) -> None:
        self.servers = [url.strip() for url in servers.split(",") if url.strip()]
        self.name = name
        self.tls = tls
        self.loop = asyncio.get_running_loop()
        self.handlers: dict[bytes, Handler] = {}
        self.on_up: list[Callable[[], None]] = []
        self.max_payload = 1_048_576
        self.connected = False
        self._subjects: dict[bytes, bytes] = {}
        self._encoded: dict[str, bytes] = {}
        self._last_sid = 0
        self._out: list[bytes] = []
        self._socket: _Socket | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._closed = False

    async def open(self) -> None:
        """Connect for the first time; raises `BusUnavailableError` if no server takes us."""
        socket = await self._connect()
        self._keeper = self.loop.create_task(self._keep(socket), name=f"nats link {self.name}")

    def encoded(self, subject: str) -> bytes:
        """A subject as it travels. Raises `BusError` for one that would break the protocol."""
        known = self._encoded.get(subject)
        if known is None:
            if not subject or not subject.isprintable() or " " in subject:
                raise BusError(f"{subject!r} is not a subject: blanks, line ends and the like.")
            if len(self._encoded) >= MANY_SUBJECTS:
                self._encoded.clear()
            known = self._encoded[subject] = subject.encode()
        return known

    def write(self, chunk: bytes) -> None:
        """Send protocol bytes at the end of this turn of the loop; dropped when not connected."""
        if not self.connected:
            return
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(chunk)

    def publish(
        self, subject: bytes, data: bytes, reply: bytes = b"", headers: bytes = b""
    ) -> None:
        self.write(pub(subject, data, reply, headers))

    def subscribe(self, subject: str, handler: Handler) -> bytes:
        """Call `handler` for every message on `subject`, across reconnects; returns the id."""
        encoded = self.encoded(subject)
        self._last_sid += 1
        sid = str(self._last_sid).encode()
        self.handlers[sid] = handler
        self._subjects[sid] = encoded
        self.write(b"SUB %b %b\r\n" % (encoded, sid))
        return sid

    def unsubscribe(self, sid: bytes) -> None:
        """Ask for no more. What is already under way still reaches the handler."""
        if self._subjects.pop(sid, None) is None:
            return
        if self._socket is None or not self.connected:
            self.handlers.pop(sid, None)
            return
        self.write(b"UNSUB %b\r\n" % sid)
        self._flush()
        self._socket.ping(lambda: self.handlers.pop(sid, None) and None)

    async def flushed(self, timeout: float = CONNECT_TIMEOUT) -> None:
        """Wait until the server has taken everything written so far."""
        if self._socket is None or not self.connected:
            raise BusUnavailableError("NATS is not connected.")
        self._flush()
        done: asyncio.Future[None] = self.loop.create_future()
        self._socket.ping(lambda: None if done.done() else done.set_result(None))
        await asyncio.wait(
            {done, self._socket.lost}, timeout=timeout, return_when="FIRST_COMPLETED"
        )
        if not done.done():
            raise BusUnavailableError(f"NATS did not answer a ping within {timeout:g} s.")

    async def close(self) -> None:
        """Flush, if the server is there, and disconnect for good."""
        self._closed = True
        if self.connected:
            try:
                await self.flushed(1.0)
            except BusError:
                pass
        self.connected = False
        if self._pinger is not None:
            self._pinger.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._socket is not None and self._socket.transport is not None:
            self._socket.transport.close()
            await asyncio.wait({self._socket.lost}, timeout=1.0)
        self.handlers.clear()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._socket is not None:
            self._socket.write(out[0] if len(out) == 1 else b"".join(out))

    async def _keep(self, socket: _Socket) -> None:
        while not self._closed:
            await asyncio.shield(socket.lost)
            self.connected = False
            self._out.clear()
            log.warning(telemetry.BUS_DISCONNECTED, reason=socket.refused or "connection lost")
            socket = await self._connect_again()

    async def _connect_again(self) -> _Socket:
        wait = RETRY_FIRST
        while True:
            try:
                return await self._connect()
            except BusError:
                await asyncio.sleep(wait * random.uniform(0.7, 1.3))
                wait = min(wait * 2, RETRY_MOST)

    async def _connect(self) -> _Socket:
        reason = "no server given"
        for url in random.sample(self.servers, len(self.servers)):
            socket = _Socket(self, url)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._greet(socket)
            except (OSError, TimeoutError, ssl.SSLError, BusUnavailableError) as error:
                socket.abort()
                reason = socket.refused or str(error) or type(error).__name__
                continue
            self._up(socket)
            return socket
        where = ", ".join(map(_address, self.servers))
        raise BusUnavailableError(f"NATS at {where} cannot be reached: {reason}.")

    async def _greet(self, socket: _Socket) -> None:
        parts = _parts(socket.url)
        host = parts.hostname or "localhost"
        port = parts.port or NATS_PORT
        transport, _ = await self.loop.create_connection(lambda: socket, host, port)
        info = await socket.info
        if parts.scheme == "tls" or info.get("tls_required"):
            context = self.tls or ssl.create_default_context()
            socket.transport = cast(
                "asyncio.Transport",
                await self.loop.start_tls(transport, socket, context, server_hostname=host),
            )
        socket.write(connect_line(parts.geturl(), self.name))
        first = socket.first_pong
        socket.ping(lambda: None if first.done() else first.set_result(None))
        await first

    def _up(self, socket: _Socket) -> None:
        self._socket = socket
        self.connected = True
        self._unanswered = 0
        for sid in [sid for sid in self.handlers if sid not in self._subjects]:
            del self.handlers[sid]
        for sid, subject in self._subjects.items():
            self.write(b"SUB %b %b\r\n" % (subject, sid))
        if self._pinger is not None:
            self._pinger.cancel()
        self._pinger = self.loop.call_later(PING_EVERY, self._ping)
        for call in self.on_up:
            call()

    def _ping(self) -> None:
        if not self.connected or self._socket is None:
            return
        if self._unanswered >= 2:
            log.warning(telemetry.BUS_SILENT, seconds=PING_EVERY * 2)
            self._socket.abort()
            return
        self._unanswered += 1
        self._socket.ping(self._answered)
        self._pinger = self.loop.call_later(PING_EVERY, self._ping)

    def _answered(self) -> None:
        self._unanswered = 0
