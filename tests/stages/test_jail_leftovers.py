"""What code leaves behind: nobody of another organisation finds it, and nothing that runs later."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from permaflow.errors import PermaflowError, SnippetError
from stages.jail.cell import Cell, Job
from stages.jail.confine import LAYERS
from stages.jail.engines import MONTY, QUICKJS, V8
from tests.stages.hostile import HOSTILE, SECRET

MEMORY = 64 << 20
WITHOUT = {
    "nothing missing": (),
    "without seccomp": ("seccomp",),
    "without Landlock": ("landlock",),
    "without namespaces": ("namespaces", "files"),
}

# What an engine that was taken over leaves, and how another one that was taken over finds it.
_FILE = (
    "open(given['{0}'], 'w').write(given['secret']); out = True",
    "out = open(given['{0}']).read()",
)
TRACES = {
    "a file in the folder of temporary files": tuple(each.format("file") for each in _FILE),
    "a file in shared memory": tuple(each.format("shared") for each in _FILE),
    "shared memory of System V": (
        """
libc.shmat.restype = ctypes.c_void_p
number = libc.shmget(given['key'], 4096, 0o1666)
assert number >= 0, ctypes.get_errno()
at = ctypes.c_void_p(libc.shmat(number, None, 0))
ctypes.memmove(at, given['secret'].encode(), len(given['secret']))
out = True
""",
        """
libc.shmat.restype = ctypes.c_void_p
number = libc.shmget(given['key'], 0, 0)
assert number >= 0, ctypes.get_errno()
out = ctypes.string_at(libc.shmat(number, None, 0o10000), len(given['secret'])).decode()
""",
    ),
    "an abstract socket": (
        """
s = kept['socket'] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(b'\\0' + given['name'].encode())
out = True
""",
        """
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'hello', b'\\0' + given['name'].encode())
out = True
""",
    ),
    "its memory": (
        """
kept['text'] = ctypes.create_string_buffer(given['secret'].encode())
out = ctypes.addressof(kept['text'])
""",
        """
memory = os.open(f"/proc/{given['process']}/mem", os.O_RDONLY)
out = os.pread(memory, len(given['secret']), given['left']).decode()
""",
    ),
    "itself": ("out = True", "os.kill(given['process'], 0); out = True"),
}


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def given() -> Iterator[dict[str, Any]]:
    """Names that both know; what was made under them goes."""
    name = f"permaflow-{uuid4().hex}"
    places = {
        "file": os.path.join(tempfile.gettempdir(), name),
        "shared": os.path.join("/dev/shm", name),
    }
    key = uuid4().int & 0x7FFFFFFF
    yield {"name": name, "key": key, "secret": SECRET, **places}
    for path in places.values():
        Path(path).unlink(missing_ok=True)
    libc = ctypes.CDLL(None)
    if (number := libc.shmget(key, 0, 0)) >= 0:
        libc.shmctl(number, 0, None)


def job(code: str, given: object = None) -> Job:
    body = json.dumps(given).encode()
    return Job(code.encode(), body, 3.0, MEMORY, 1_000_000, lambda line: None)


async def did(cell: Cell, code: str, given: object) -> object:
    """What it got hold of; None if nothing."""
    try:
        return json.loads(await cell.run(job(code, given)))
    except PermaflowError:
        return None


def inner(pid: int) -> int:
    """A cell is two processes where it has namespaces; this is the one that code runs in."""
    return int((Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or [pid])[0])


async def found(
    threads: ThreadPoolExecutor, trace: str, given: dict[str, Any], without: tuple[str, ...]
) -> list[object]:
    """What another organisation finds while the first one's process waits for more, and what the
    first one finds in its next process.
    """
    leave, find = TRACES[trace]
    first = await Cell.start(HOSTILE, MEMORY, threads, without=without)
    try:
        process = inner(first.pid)
        left = await did(first, leave, given)
        more = given | {"process": process, "left": left or 0}
        there = []
        for _ in range(2):
            other = await Cell.start(HOSTILE, MEMORY, threads, without=without)
            there.append(await did(other, find, more))
            await other.end()
            await first.end()
        return there
    finally:
        await first.end()


@pytest.mark.parametrize("missing", WITHOUT)
@pytest.mark.parametrize("trace", TRACES)
async def test_nobody_finds_what_an_engine_that_was_taken_over_left(
    threads: ThreadPoolExecutor, given: dict[str, Any], trace: str, missing: str
) -> None:
    assert await found(threads, trace, given, WITHOUT[missing]) == [None, None]
    assert not any(map(os.path.exists, (given["file"], given["shared"])))


@pytest.mark.parametrize("trace", TRACES)
async def test_without_the_jail_another_organisation_finds_it(
    threads: ThreadPoolExecutor, given: dict[str, Any], trace: str
) -> None:
    if trace == "its memory" and os.geteuid() != 0:
        pytest.skip("it depends on how the system is set up whether a plain user can do this")
    there, _ = await found(threads, trace, given, LAYERS)
    assert there in (True, SECRET)


# --- engines that do as they should ---------------------------------------------------------------

_JAVASCRIPT = {
    "a global": ("globalThis.left = 'left';", "return typeof left"),
    "a variable of a script": ("(0, eval)('var left = 1');", "return typeof left"),
    "a prototype": ("Object.prototype.left = 1;", "return ({}).left ?? null"),
    "a function of its own": ("Math.max = () => 'left';", "return Math.max(1, 2)"),
    "a way to write JSON": ("JSON.parse = () => 'left';", "return JSON.parse('1')"),
    "a frozen prototype": (
        "Object.freeze(Array.prototype);",
        "return Object.isFrozen(Array.prototype)",
    ),
    "something of the console": ("console.left = 1;", "return console.left ?? null"),
    "something removed": ("delete globalThis.Map;", "return typeof Map"),
    "a setter": (
        "let kept; Object.defineProperty(Object.prototype, 'a', "
        "{get: () => kept ?? 'left', set: (a) => { kept = a }});",
        "return ({}).a ?? null",
    ),
}
_QUICKJS = {
    "a loop over arrays": (
        "Array.prototype[Symbol.iterator] = function* () { yield 'left' };",
        "return ((...all) => all)(...[1])",
    ),
}
_V8 = {"what matched last": ("/(left)/.exec('left');", "return RegExp.$1")}
_PYTHON = {
    "a name": ("left = 1", "try:\n  found = left\nexcept NameError:\n  found = None\nfound"),
    "a function of its own": ("def len(_): return 'left'", "len([])"),
    "a class of errors": ("ValueError = TypeError", "str(ValueError)"),
}
LEFT = {
    **{f"quickjs: {name}": (QUICKJS, *each) for name, each in (_JAVASCRIPT | _QUICKJS).items()},
    **{f"v8: {name}": (V8, *each) for name, each in (_JAVASCRIPT | _V8).items()},
    **{f"python: {name}": (MONTY, *each) for name, each in _PYTHON.items()},
}


@pytest.mark.parametrize("name", LEFT)
async def test_no_later_code_finds_what_code_left(threads: ThreadPoolExecutor, name: str) -> None:
    """In the same process; processes of others are others."""
    engine, leave, look = LEFT[name]
    cell = await Cell.start(engine, MEMORY, threads)
    try:
        untouched = await cell.run(job(look))
        assert await cell.run(job(f"{leave}\n{look}")) != untouched, "nothing could be found"
        with contextlib.suppress(SnippetError):  # some of it breaks what hands the output over
            await cell.run(job(leave))
        assert await cell.run(job(look)) == untouched
    finally:
        await cell.end()


async def test_no_work_that_code_left_open_goes_on_beside_later_code(
    threads: ThreadPoolExecutor,
) -> None:
    leave = "(async () => { while (true) { await 0; console.log('left') } })(); return 1"
    look = "for (let i = 0; i < 1000; i++) await 0; console.log('later'); return 2"
    lines: list[str] = []
    cell = await Cell.start(QUICKJS, MEMORY, threads)
    try:
        assert await cell.run(job(leave)) == b"1"
        assert await cell.run(replace(job(look), log=lines.append)) == b"2"
    finally:
        await cell.end()
    assert lines == ["later"]
