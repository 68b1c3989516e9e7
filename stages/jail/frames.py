"""What a runner and a cell say to each other over two pipes.

::

    frame  = kind (1 byte) · length (4 bytes, big-endian) · body
    →  J   job: seconds (double) · memory (u64) · output (u64) · size of code (u32) · code · input
    ←  H   ready: the layers that are active; on further lines each that is not, and why
    ←  F   not ready, and why
    ←  L   one line of the log
    ←  D   done: the output, as JSON
    ←  E   failed: kind · name · message · line · column, with NUL between

This module is loaded in every cell: it imports nothing that takes long.
"""

from __future__ import annotations

import struct

JOB, READY, UNREADY, LINE, DONE, FAILED = b"J", b"H", b"F", b"L", b"D", b"E"

HEAD = struct.Struct(">cI")
JOB_HEAD = struct.Struct(">dQQI")

TIMED_OUT = 14
"""The exit status of a cell whose time was up: the number of SIGALRM."""

MAX_LINES = 200
MAX_LINE = 2_000
MAX_LOG = 32_000
"""Lines, characters of a line, and characters of all lines that a cell sends for a job."""

MAX_MESSAGE = 4_000


def frame(kind: bytes, body: bytes) -> bytes:
    return HEAD.pack(kind, len(body)) + body


def job(seconds: float, memory: int, output: int, code: bytes, given: bytes) -> bytes:
    head = JOB_HEAD.pack(seconds, memory, output, len(code))
    return HEAD.pack(JOB, len(head) + len(code) + len(given)) + head + code + given


def read_job(body: bytes) -> tuple[float, int, int, str, str]:
    seconds, memory, output, size = JOB_HEAD.unpack_from(body)
    start = JOB_HEAD.size
    return (
        seconds,
        memory,
        output,
        body[start : start + size].decode(),
        body[start + size :].decode(),
    )


def failure(kind: str, name: str, message: str, line: int = 0, column: int = 0) -> bytes:
    parts = (kind, name[:100], message[:MAX_MESSAGE], str(line), str(column))
    return "\0".join(part.replace("\0", "") for part in parts).encode(errors="replace")
