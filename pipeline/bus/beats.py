"""In-progress beats from a thread that user work cannot block.

The thread has a small synchronous NATS connection of its own, because the event loop's socket
cannot be used while a task holds the loop. Work that holds the interpreter's lock for seconds
(a C extension that does not release it) stops this thread too; such work belongs in a process.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from urllib.parse import urlsplit

from pipeline.bus.link import connect_line

IDLE_WAIT = 30.0
RETRY = 0.2
TICKS_ON = 20
TIMEOUT = 5.0


class Beats:
    """Says "still at work" for messages, by their reply subjects. Starts with its first use."""

    def __init__(self, servers: str, name: str, tls: ssl.SSLContext | None = None) -> None:
        self._servers = [url.strip() for url in servers.split(",") if url.strip()]
        self._name = f"{name} beats"
        self._tls = tls
        self._lock = threading.Lock()
        self._due: dict[bytes, tuple[float, float]] = {}
        self._now: deque[bytes] = deque()
        self._tick = IDLE_WAIT
        self._added = False
        self._asleep = False
        self._idle_ticks = TICKS_ON
        self._closed = False
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    def add(self, reply: bytes, every: float) -> None:
        """Beat for this message every so many seconds until it is discarded."""
        with self._lock:
            self._due[reply] = (time.monotonic() + every, every)
            self._tick = min(self._tick, every / 2)
            self._added = True
        if self._asleep or self._thread is None:
            self._wake()

    def discard(self, reply: bytes) -> None:
        with self._lock:
            self._due.pop(reply, None)

    def say(self, reply: bytes) -> None:
        """Beat once, now."""
        self._now.append(reply)
        self._wake()

    def close(self) -> None:
        """Stop beating; returns when the thread has ended."""
        self._closed = True
        if self._thread is not None:
            self._wake()
            self._thread.join(TIMEOUT)
        self._woken.close()
        self._waker.close()

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        try:
            self._waker.send(b".")
        except OSError:  # the pipe is full: the thread is awake anyway
            pass

    def _run(self) -> None:
        while not self._closed:
            try:
                self._beat()
                self._wait(self._pause())
            except OSError:
                self._hang_up()
                _readable([self._woken], RETRY)
        self._hang_up()

    def _beat(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [reply for reply, (at, _) in self._due.items() if at <= now]
        replies = due + list(self._now)
        if not replies:
            return
        self._connected().sendall(b"".join(b"PUB %b 4\r\n+WPI\r\n" % reply for reply in replies))
        # only now: what could not be said is said again as soon as the server is back
        for _ in range(len(replies) - len(due)):
            self._now.popleft()
        with self._lock:
            for reply in due:
                if reply in self._due:
                    every = self._due[reply][1]
                    self._due[reply] = (now + every, every)

    def _pause(self) -> float:
        """Until the next look. Short steps do not wake this thread: it ticks on for a while."""
        self._idle_ticks = 0 if self._added else self._idle_ticks + 1
        self._added = False
        return self._tick if self._due or self._idle_ticks < TICKS_ON else IDLE_WAIT

    def _wait(self, seconds: float) -> None:
        self._asleep = seconds == IDLE_WAIT
        if self._asleep and self._due:  # added after `seconds` was chosen
            seconds = self._tick
        readers = [self._woken] + ([self._socket] if self._socket is not None else [])
        readable = _readable(readers, seconds)
        self._asleep = False
        if self._woken in readable:
            self._woken.recv(4096)
        if self._socket is not None and self._socket in readable:
            self._answer(self._socket)

    def _answer(self, connection: socket.socket) -> None:
        """The server says little: INFO, and PING every two minutes."""
        connection.settimeout(0)
        try:
            heard = connection.recv(65_536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return  # TLS talks to itself
        finally:
            connection.settimeout(TIMEOUT)
        if not heard:
            raise OSError("the server hung up")
        if b"PING\r\n" in heard:
            connection.sendall(b"PONG\r\n")

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> socket.socket:
        problem = OSError("no server given")
        for url in self._servers:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            host = parts.hostname or "localhost"
            try:
                connection = socket.create_connection((host, parts.port or 4222), TIMEOUT)
            except OSError as error:
                problem = error
                continue
            try:
                info = connection.recv(65_536)
                if parts.scheme == "tls" or b'"tls_required":true' in info:
                    context = self._tls or ssl.create_default_context()
                    connection = context.wrap_socket(connection, server_hostname=host)
                connection.sendall(connect_line(parts.geturl(), self._name))
            except OSError as error:  # it hung up on us: the next one, perhaps
                connection.close()
                problem = error
                continue
            return connection
        raise problem

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _readable(sockets: list[socket.socket], seconds: float) -> list[socket.socket]:
    """Those that have something to say, after so many seconds at most. Not by `select`, which knows
    no descriptor above 1,023: a runner with many steps has more files open than that.
    """
    poll = select.poll()
    by_descriptor = {each.fileno(): each for each in sockets}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(seconds * 1000)]
