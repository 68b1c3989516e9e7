"""The engine `monty`: a subset of Python by pydantic-monty, a new session for every job.

Monty interprets in a program of its own, which is started while the jail is put up: it has every
layer around it, sees no file but itself and the C library, and may start threads. What the cell's
own process does is to talk to it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

import pydantic_monty
from pydantic_monty import Monty, MontyCrashedError, MontyError, MontySyntaxError

from stages.jail.confine import Needs
from stages.jail.frames import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARIES = ("libgcc_s.so.1", "libpthread.so.0", "libm.so.6", "libdl.so.2", "libc.so.6")
_DEPTH = 500
_LINES_AFTER = 0.0


class Engine:
    """See `stages.jail.child`."""

    def __init__(self, prelude: str, memory: int) -> None:
        program = _program()
        files = (program, _interpreter(program), *_libraries())
        self._pool = Monty(binary_path=program, min_processes=1, max_processes=1)
        self._memory = memory
        self.needs = Needs(
            threads=True, address_space=memory + (256 << 20), files=files, start=self._start
        )

    def _start(self) -> None:
        self._pool.__enter__()
        with self._pool.checkout() as session:
            session.feed_run("1")

    def run(self, code: str, given: str, memory: int, line: Callable[[str], None]) -> str | bytes:
        """The output as JSON, or a failure's frame."""
        lines = _Lines(line)
        limits = pydantic_monty.ResourceLimits(max_memory=memory, max_recursion_depth=_DEPTH)
        try:
            with self._pool.checkout(limits=limits, print_flush_interval=_LINES_AFTER) as session:
                found = session.feed_run(
                    code, inputs={"input": json.loads(given)}, print_callback=lines
                )
        except MontyCrashedError as error:
            return failure("crashed", "", str(error))
        except MontyError as error:
            return _failed(error)
        finally:
            lines.end()
        try:
            return json.dumps(found, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            return failure("bad_output", type(error).__name__, str(error))

    def renew(self) -> None:
        """Every job has a session of its own."""


class _Lines:
    """Printed text, cut into lines."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._rest = ""

    def __call__(self, _stream: str, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for each in lines:
            self._line(each)

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)


def _failed(error: MontyError) -> bytes:
    raised = error.exception()
    name = type(raised).__name__
    if name == "MemoryError":
        return failure("memory", name, str(raised))
    frames = error.traceback() if hasattr(error, "traceback") else []
    place = frames[-1] if frames else None
    line, column = (place.line, place.column) if place is not None else (0, 0)
    kind = "syntax" if isinstance(error, MontySyntaxError) else "thrown"
    return failure(kind, name, str(raised), line, column)


def _program() -> str:
    """Monty's program, which its wheel puts into the environment's folder of programs."""
    packages = os.path.dirname(os.path.dirname(os.path.abspath(pydantic_monty.__file__)))
    beside = os.path.dirname(sys.executable)
    for folder in (os.path.join(packages, "..", "..", "..", "bin"), beside):
        path = os.path.realpath(os.path.join(folder, "monty"))
        if os.path.isfile(path):
            return path
    raise FileNotFoundError("The program of pydantic-monty is not where its wheel puts it.")


def _interpreter(program: str) -> str:
    """The loader that an executable names in its head."""
    with open(program, "rb") as file:
        head = file.read(4096)
    start = head.index(b"/lib")
    return head[start : head.index(b"\0", start)].decode()


def _libraries() -> list[str]:
    """Where the C library and its parts are."""
    for name in _LIBRARIES:
        ctypes.CDLL(name)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")}
    return sorted(path for path in mapped if os.path.basename(path) in _LIBRARIES)
