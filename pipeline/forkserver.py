"""Processes of vertices, forked quickly.

A small process is forked before anything else happens; it imports what vertices need while the
servers start, and then forks a child for each vertex that it is asked for. A child that is killed
is replaced in milliseconds. The parent talks to it over a socket, one JSON object in a message::

    {"spawn": "runner", "env": {…}, "stages": []}   parent → fork server
    {"born": "runner", "pid": 1234}                 fork server → parent
    {"ready": "runner", "pid": 1234, "port": 9090}  child → parent
    {"failed": "runner", "pid": 1234, "error": "…"} child → parent
    {"ended": 1234, "status": -9}                   fork server → parent

On Linux the kernel ends the fork server with its parent, and the children with the fork server;
elsewhere each looks once a second whether its parent is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

PRELOAD = (
    "uvloop",
    "psycopg_pool",
    "pipeline.serve",
    "pipeline.orchestrator",
    "pipeline.programs",
    "pipeline.runner",
    "pipeline.runner_services",
    "pipeline.clock",
    "pipeline.completion",
    "pipeline.ingest",
    "pipeline.sources",
    "pipeline.gateway.server",
    "stages.http",
    "stages.record",
    "stages.code",
)
"""What vertices import; a module that is not installed is left to the vertex that wants it."""

OPTIONAL = ("rich", "aiohttp")
"""What libraries import where it is installed (structlog for coloured tracebacks, nats-py for
websockets), and no vertex uses: half a second of a processor at every start. Tasks may import it.
"""

_LONGEST = 64 * 1024
_PR_SET_PDEATHSIG = 1

Message = dict[str, Any]


class ForkServer:
    """The parent's side. Make it before any thread or event loop exists.

    `errors` is the descriptor of a file that the children write to instead of our stderr.
    """

    def __init__(self, errors: int | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            if errors is not None:
                os.dup2(errors, sys.stderr.fileno())
            _run(theirs, parent)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()

    def attach(self) -> None:
        """Start listening, on the running event loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        while True:
            try:
                data = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._socket)
                self._messages.put_nowait(None)
                return
            self._messages.put_nowait(json.loads(data))

    async def message(self) -> Message | None:
        """What a child or the fork server says next; None once the fork server is gone."""
        return await self._messages.get()

    def spawn(self, vertex: str, env: Mapping[str, str], stages: Sequence[str] = ()) -> None:
        """Ask for a process of a vertex."""
        request = {"spawn": vertex, "env": dict(env), "stages": list(stages)}
        self._socket.send(json.dumps(request).encode())

    def close(self) -> None:
        """End the fork server, and with it whatever child still lives."""
        with contextlib.suppress(OSError):
            self._socket.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)


# --- the fork server's own process ----------------------------------------------------------------


def _run(channel: socket.socket, parent: int) -> None:
    """Never returns."""
    code = 1
    try:
        _die_with_parent(signal.SIGTERM, parent)
        os.setsid()
        _serve(channel)
        code = 0
    finally:
        os._exit(code)


def _serve(channel: socket.socket) -> None:
    _preload()
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    while True:
        readable, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(channel)
        if channel.fileno() in readable:
            data = channel.recv(_LONGEST)
            if not data:
                return
            _fork(channel, json.loads(data))


def _preload() -> None:
    """Import, and set what was imported apart from garbage collection, before children share it."""
    gc.disable()
    absent = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in absent:
        del sys.modules[name]
    gc.enable()
    gc.collect()
    gc.freeze()


def _reap(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(channel, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _fork(channel: socket.socket, request: Message) -> None:
    vertex = request["spawn"]
    server = os.getpid()
    pid = os.fork()
    if pid:
        _say(channel, {"born": vertex, "pid": pid})
        return
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _die_with_parent(signal.SIGKILL, server)
        os.environ.update(request["env"])
        code = _live(channel, vertex, request["stages"])
    finally:
        sys.stderr.flush()
        os._exit(code)


def _live(channel: socket.socket, vertex: str, stages: Sequence[str]) -> int:
    import uvloop

    from permaflow.errors import PermaflowError
    from pipeline import telemetry
    from pipeline.serve import serve
    from pipeline.settings import load_settings

    def ready(port: int) -> None:
        _say(channel, {"ready": vertex, "pid": os.getpid(), "port": port})

    try:
        settings = load_settings()
        telemetry.configure(settings.log_level, settings.log_format)
        uvloop.run(serve(vertex, settings, stages=stages, ready=ready))
    except PermaflowError as error:
        _say(channel, {"failed": vertex, "pid": os.getpid(), "error": str(error)})
        return 1
    except Exception as error:
        telemetry.log.exception(telemetry.VERTEX_FAILED, vertex=vertex, error=repr(error))
        _say(channel, {"failed": vertex, "pid": os.getpid(), "error": repr(error)})
        return 1
    return 0


def _say(channel: socket.socket, message: Message) -> None:
    with contextlib.suppress(OSError):
        channel.send(json.dumps(message).encode())


def _die_with_parent(number: signal.Signals, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    else:
        threading.Thread(target=_watch_parent, args=(number, parent), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(number: signal.Signals, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)
