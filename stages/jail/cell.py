"""A cell: one jailed process, from the outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import IO

from permaflow.errors import (
    JailBreachError,
    JailError,
    PermaflowError,
    SnippetError,
    SnippetLimitError,
    SnippetTimeoutError,
)
from stages.jail import frames
from stages.jail.engines import Engine

START_WITHIN = 10.0
LATE = 0.1
"""Seconds after which a cell that did not end itself in time is ended."""

_BOOT = (
    "import sys;sys.path[:0]=sys.argv[1].split('\\n');"
    "from stages.jail.child import main;main(*sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class Job:
    """`given` is JSON; `memory` and `output` are bytes."""

    code: bytes
    given: bytes
    seconds: float
    memory: int
    output: int
    log: Callable[[str], None]


class Cell:
    """A process that runs one job at a time. After `ended` it is of no more use."""

    def __init__(self, engine: Engine, process: subprocess.Popen[bytes], reaper: Executor) -> None:
        self.engine = engine
        self.pid = process.pid
        self.jobs = 0
        self.seconds = 0.0
        self.layers: tuple[str, ...] = ()
        self.missing: Mapping[str, str] = {}
        self.ended = False
        self._process = process
        self._reaper = reaper
        self._pipes: list[asyncio.BaseTransport | IO[bytes] | None] = [
            process.stdin,
            process.stdout,
        ]
        self._writer: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._job: Job | None = None
        self._logged = 0
        self._late = False
        self._gone: asyncio.Future[int] | None = None

    @classmethod
    async def start(
        cls, engine: Engine, memory: int, reaper: Executor, *, without: Sequence[str] = ()
    ) -> Cell:
        """A cell that is ready. Raises `JailError`, and `NotFoundError` for a missing engine.

        Tests leave layers out, to see what they are good for.
        """
        paths = "\n".join(engine.paths)
        arguments = ["-c", _BOOT, paths, engine.module, str(memory), " ".join(without)]
        loop = asyncio.get_running_loop()
        # The kernel ends a cell with the thread that started it: the reaper's threads last.
        process = await loop.run_in_executor(reaper, _spawn, arguments)
        cell = cls(engine, process, reaper)
        try:
            async with asyncio.timeout(START_WITHIN):
                await cell._connect()
        except TimeoutError:
            await cell.end()
            raise JailError("A cell did not get ready in time.") from None
        except BaseException:
            await cell.end()
            raise
        return cell

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._answer = loop.create_future()
        self._pipes[1], _ = await loop.connect_read_pipe(lambda: _Frames(self), stdout)
        self._writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, stdin)
        self._pipes[0] = self._writer
        active, _, absent = (await self._answer).decode().partition("\n")
        self.layers = tuple(active.split())
        self.missing = dict(line.split(": ", 1) for line in absent.split("\n") if line)

    async def run(self, job: Job) -> bytes:
        """The output, as JSON that nobody has checked. Raises `SnippetError` and `JailError`.

        A cell that was stopped, or whose caller gave up, has ended afterwards.
        """
        assert self._writer is not None
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._job, self._logged = job, 0
        self.jobs += 1
        began = time.monotonic()
        timer = loop.call_later(job.seconds + LATE, self._stop_late)
        self._writer.write(frames.job(job.seconds, job.memory, job.output, job.code, job.given))
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            timer.cancel()
            self._answer = self._job = None
            self.seconds += time.monotonic() - began

    def kill(self) -> None:
        """End the process and all that it may have started, now."""
        self.ended = True
        if self._gone is None or not self._gone.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._reap()

    async def end(self) -> None:
        """Kill it and wait until it is gone."""
        self.kill()
        await self._reap()
        for pipe in self._pipes:
            if pipe is not None:
                pipe.close()

    def _stop_late(self) -> None:
        self._late = True
        self.kill()

    def _reap(self) -> asyncio.Future[int]:
        if self._gone is None:
            loop = asyncio.get_running_loop()
            self._gone = loop.run_in_executor(self._reaper, self._process.wait)
        return self._gone

    # --- what comes back --------------------------------------------------------------------------

    def on_frame(self, kind: bytes, body: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.kill()  # nothing was asked
            return
        match kind, self._job:
            case frames.LINE, Job(log=log):
                log(body.decode(errors="replace"))
            case (frames.DONE, Job()) | (frames.READY, None):
                self._answer.set_result(body)
            case frames.FAILED, Job() as job:
                self._answer.set_exception(_failure(job, body))
            case frames.UNREADY, None:
                self._answer.set_exception(JailError(f"A cell did not start: {body.decode()}"))
            case _:
                self.breach("it sent what no cell sends")

    def may_send(self, kind: bytes, size: int) -> bool:
        """Whether a frame of this size may come now. All lines of a job share one allowance."""
        if kind == frames.LINE:
            self._logged += size + 100
            # One more line says that others are left out.
            most = 4 * (frames.MAX_LOG + frames.MAX_LINE) + 100 * (frames.MAX_LINES + 1)
            return self._logged <= most
        if kind == frames.DONE and self._job is not None:
            return size <= self._job.output
        return size <= 32_000

    def breach(self, what: str) -> None:
        """The process does what its own code never does: it is no longer ours."""
        self.kill()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(JailBreachError(f"The cell was stopped: {what}."))

    def on_end(self) -> None:
        """The other side closed its pipe, which it does by ending."""
        self.ended = True
        # A cell is two processes, and the outer one tells how the inner one ended.
        asyncio.get_running_loop().call_later(LATE, self.kill)
        if self._answer is not None and not self._answer.done():
            answer = self._answer
            self._reap().add_done_callback(lambda gone: self._explain(answer, gone))

    def _explain(self, answer: asyncio.Future[bytes], gone: asyncio.Future[int]) -> None:
        if not answer.done():
            status = 0 if gone.cancelled() or gone.exception() else gone.result()
            answer.set_exception(_death(status, self._job, self._late))


class _Frames(asyncio.Protocol):
    """Cuts what a cell sends into frames, and refuses those that are too large before they come."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._data = bytearray()
        self._needed = 0

    def data_received(self, data: bytes) -> None:
        self._data += data
        size = frames.HEAD.size
        while not self._cell.ended and len(self._data) >= size:
            kind, length = frames.HEAD.unpack_from(self._data)
            if not self._needed:
                if not self._cell.may_send(kind, length):
                    self._cell.breach("it sent more than it may")
                    return
                self._needed = size + length
            if len(self._data) < self._needed:
                return
            body = bytes(self._data[size : self._needed])
            del self._data[: self._needed]
            self._needed = 0
            self._cell.on_frame(kind, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cell.on_end()


def _spawn(arguments: list[str]) -> subprocess.Popen[bytes]:
    # A Python that is not at its usual place may need this to find its own library.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    # Code does the same wherever it runs; and V8 needs no file to find out where that is.
    kept["TZ"] = "UTC"
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=kept,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise JailError(f"A cell could not be started: {error}") from error


def _failure(job: Job, body: bytes) -> PermaflowError:
    """What a failed job means. Nothing in it can be trusted to be what it says."""
    parts = body.decode(errors="replace").split("\0")
    kind, name, message, line, column = (*parts, "", "", "", "", "")[:5]
    if kind == "memory":
        megabytes = job.memory >> 20
        return SnippetLimitError(f"The code needs more than its {megabytes} MB of memory.")
    if kind == "output":
        return SnippetLimitError(
            f"The output has {message[:20]} bytes; at most {job.output:,} are allowed."
        )
    place = (int(line), int(column)) if line.isdecimal() and column.isdecimal() else (0, 0)
    text = f"{name}: {message}" if name else message
    if kind == "bad_output":
        text = f"The output cannot be written as JSON: {message}"
    return SnippetError(text, name=name, line=place[0] or None, column=place[1] or None)


def _death(status: int, job: Job | None, late: bool) -> PermaflowError:
    """What the end of a process means that should still be at work."""
    if job is None:
        return JailError(f"A cell ended with status {status} before it was ready.")
    if late or status in (frames.TIMED_OUT, -signal.SIGALRM, -signal.SIGXCPU):
        return SnippetTimeoutError(f"The code took longer than its {job.seconds:g} seconds.")
    if status == -signal.SIGSYS:
        return JailBreachError("The code made its engine ask for what the jail forbids.")
    if status < 0 and status != -signal.SIGKILL:
        name = signal.Signals(-status).name
        return SnippetLimitError(f"The code made its engine fall over ({name}).")
    return JailError(f"The cell ended in the middle of the code (status {status}).")
