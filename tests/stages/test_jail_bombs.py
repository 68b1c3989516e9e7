"""Hostile JavaScript: what would wear out the machine is stopped in time; nothing gets out."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from permaflow.errors import PermaflowError, SnippetError
from stages.jail.cell import Cell, Job
from stages.jail.engines import QUICKJS
from stages.jail.pool import Pool, PoolLimits
from tests.stages.bombs import bombs, escapes
from tests.stages.hostile import HOSTILE, SECRET, canaries

MEMORY = 32 << 20
SECONDS = 0.15
LATE = 0.25
"""How much later than its time code may be stopped."""

NATIVE = {
    "spins": "while True: pass",
    "sleeps": "time.sleep(60)",
    "sleeps through signals": """
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
time.sleep(60)
""",
    "takes memory": "kept['a'] = [bytearray(1 << 20) for _ in range(10_000)]",
    "maps memory": "kept['a'] = [mmap.mmap(-1, 1 << 24) for _ in range(10_000)]",
    "forks": """
while True:
    os.fork()
""",
    "starts threads": """
while True:
    threading.Thread(target=time.sleep, args=(60,)).start()
""",
    "opens descriptors": "kept['a'] = [os.dup(1) for _ in range(100_000)]",
    "floods the output": """
data = b'x' * 65536
while True:
    os.write(1, data)
""",
    "sends a huge frame": "os.write(1, b'D' + b'\\xff' * 4 + b'x' * 60000); time.sleep(60)",
    "sends huge lines": """
head = b'L' + (8000).to_bytes(4, 'big') + b'x' * 8000
while True:
    os.write(1, head)
""",
    "says that it is ready again": "os.write(1, b'H' + (0).to_bytes(4, 'big')); time.sleep(60)",
    "answers twice": "os.write(1, (b'D' + (1).to_bytes(4, 'big') + b'1') * 2); time.sleep(60)",
    "sends nonsense": "os.write(1, b'?' * 10_000); time.sleep(60)",
    "closes the door": "os.close(1); time.sleep(60)",
    "ends": "os._exit(0)",
    "falls over": "ctypes.string_at(8)",
    "aborts": "os.abort()",
}


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def job(code: str, given: object = None, seconds: float = SECONDS) -> Job:
    body = json.dumps(given).encode()
    return Job(code.encode(), body, seconds, MEMORY, 1_000_000, lambda line: None)


async def took(cell: Cell, code: str) -> float:
    """How long the code was at work, however it ended; the cell is gone afterwards."""
    began = time.monotonic()
    try:
        await cell.run(job(code))
    except PermaflowError:
        pass
    finally:
        elapsed = time.monotonic() - began
        await cell.end()
    return elapsed


async def test_two_hundred_bombs_are_stopped_in_time(threads: ThreadPoolExecutor) -> None:
    """The loop of the runner is free all the while, and its memory stays where it is."""
    todo = list(bombs().items())
    late: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(todo) == 200

    async def work() -> None:
        while todo:
            name, code = todo.pop()
            seconds = await took(await Cell.start(QUICKJS, MEMORY, threads), code)
            if seconds > SECONDS + LATE:
                late[name] = seconds

    await asyncio.gather(work(), work())
    assert late == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("name", NATIVE)
async def test_an_engine_that_was_taken_over_is_stopped_in_time(
    threads: ThreadPoolExecutor, name: str
) -> None:
    cell = await Cell.start(HOSTILE, MEMORY, threads)
    assert await took(cell, NATIVE[name]) <= SECONDS + LATE
    with pytest.raises(ProcessLookupError):
        os.kill(cell.pid, 0)


async def test_a_thousand_escapes_lead_nowhere(tmp_path: Path) -> None:
    with canaries(tmp_path) as touched:
        found = []
        async with Pool(PoolLimits(jobs=10_000)) as pool:
            todo = escapes()
            assert len(todo) > 1_000
            for code in todo:
                try:
                    found.append(await pool.run("acme", QUICKJS, job(code, touched.given)))
                except SnippetError as error:
                    found.append(str(error).encode())
        assert touched.traces() == []
    assert [text for text in found if SECRET.encode() in text or b"PATH=" in text] == []
