"""A cell from the inside: load the engine, lock the door behind, then do one job after another.

Runs as a process of its own, without `site`, with nothing but two pipes. An engine is a class with
`needs`, `run(code, input, memory, line)`, which gives JSON or a frame of `frames.failure`, and
`renew()`, called after every job.
"""

from __future__ import annotations

import importlib
import os
import signal

from stages.jail import confine, frames, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

_ALL_FILES = 2**31 - 1


def main(module: str, memory: str, without: str) -> None:
    """Never returns. `without` names layers to leave out, in tests that show what they are for."""
    try:
        libc.syscall("close_range", 3, _ALL_FILES, 0)
    except OSError:
        os.closerange(3, 4096)
    try:
        missing = dict.fromkeys(without.split(), "left out")
        confine.begin(missing)
        engine = importlib.import_module(module).Engine(_prelude(), int(memory))
        libc.exit_on_alarm(signal.SIGALRM)
        confine.finish(missing, engine.needs)
    except BaseException as error:  # whatever it is, the other side has to hear of it
        _send(frames.UNREADY, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    active = [layer for layer in confine.LAYERS if layer not in missing]
    absent = [f"{layer}: {why}" for layer, why in missing.items()]
    _send(frames.READY, "\n".join([" ".join(active), *absent]).encode())
    while True:
        head = _read(frames.HEAD.size)
        _, size = frames.HEAD.unpack(head)
        _work(engine, _read(size))
        engine.renew()


def _work(engine: object, body: bytes) -> None:
    seconds, memory, most, code, given = frames.read_job(body)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found = engine.run(code, given, memory, _Lines())  # type: ignore[attr-defined]
    except MemoryError:
        found = frames.failure("memory", "", "out of memory")
    output = found.encode(errors="replace") if isinstance(found, str) else found
    if isinstance(found, str) and len(output) > most:
        found = output = frames.failure("output", "", str(len(output)))
    signal.setitimer(signal.ITIMER_REAL, 0)
    _send(frames.DONE if isinstance(found, str) else frames.FAILED, output)


class _Lines:
    """The lines that a job may write; those beyond the limit are left out, and that is said."""

    def __init__(self) -> None:
        self._lines = 0
        self._size = 0

    def __call__(self, text: str) -> None:
        if self._lines > frames.MAX_LINES:
            return
        self._lines += 1
        self._size += min(len(text), frames.MAX_LINE)
        if self._lines > frames.MAX_LINES or self._size > frames.MAX_LOG:
            self._lines = frames.MAX_LINES + 1
            text = "… more lines are left out"
        _send(frames.LINE, text[: frames.MAX_LINE].encode(errors="replace"))


def _prelude() -> str:
    path = os.path.join(os.path.dirname(__file__), "prelude.js")
    with open(path, encoding="utf-8") as file:
        return file.read()


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _send(kind: bytes, body: bytes) -> None:
    data = memoryview(frames.frame(kind, body))
    while data:
        data = data[os.write(1, data) :]
