"""The jail against an engine that was taken over, with all its layers and with some missing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from permaflow.errors import PermaflowError
from stages.jail.cell import Cell, Job
from stages.jail.confine import LAYERS
from stages.jail.engines import QUICKJS, Engine
from tests.stages.hostile import (
    HOSTILE,
    HOSTILE_MACHINE,
    HOSTILE_PROGRAM,
    ONLY_ROOT,
    ONLY_SECCOMP,
    PAYLOADS,
    PROGRAMS_MAY,
    Canaries,
    canaries,
)

MEMORY = 64 << 20
WITHOUT = {
    "nothing missing": (),
    "without seccomp": ("seccomp",),
    "without Landlock": ("landlock",),
    "without namespaces": ("namespaces", "files"),
    "seccomp and limits alone": ("namespaces", "files", "landlock", "user"),
}


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def here() -> set[str]:
    """The layers that this system has."""

    async def look() -> set[str]:
        with ThreadPoolExecutor(1) as threads:
            cell = await Cell.start(QUICKJS, MEMORY, threads)
            await cell.end()
        return set(cell.layers)

    return asyncio.run(look())


@pytest.fixture
def touched(tmp_path: Path) -> Iterator[Canaries]:
    with canaries(tmp_path) as made:
        yield made


def job(code: str, given: object = None, seconds: float = 3.0) -> Job:
    body = json.dumps(given).encode()
    return Job(code.encode(), body, seconds, MEMORY, 1_000_000, lambda line: None)


async def tried(
    threads: ThreadPoolExecutor,
    payload: str,
    given: object,
    without: tuple[str, ...],
    engine: Engine = HOSTILE,
) -> object:
    """What a payload got hold of; None if nothing."""
    cell = await Cell.start(engine, MEMORY, threads, without=without)
    try:
        assert not set(cell.layers) & set(without)
        return json.loads(await cell.run(job(PAYLOADS[payload], given)))
    except PermaflowError:
        return None
    finally:
        await cell.end()


@pytest.mark.parametrize("missing", WITHOUT)
@pytest.mark.parametrize("payload", PAYLOADS)
async def test_an_engine_that_was_taken_over_gets_hold_of_nothing(
    threads: ThreadPoolExecutor, touched: Canaries, here: set[str], payload: str, missing: str
) -> None:
    without = WITHOUT[missing]
    if not (here - set(without)) & {"namespaces", "seccomp"}:
        pytest.skip("nothing that could hold is left here")
    if "seccomp" in without and payload in ONLY_SECCOMP:
        pytest.skip("only seccomp forbids it")
    assert await tried(threads, payload, touched.given, without) is None
    assert touched.traces() == []


@pytest.mark.parametrize("engine", [HOSTILE_MACHINE, HOSTILE_PROGRAM], ids=lambda one: one.name)
@pytest.mark.parametrize("payload", PAYLOADS)
async def test_engines_that_need_more_of_the_kernel_get_hold_of_nothing_either(
    threads: ThreadPoolExecutor, touched: Canaries, payload: str, engine: Engine
) -> None:
    if engine is HOSTILE_PROGRAM and payload in PROGRAMS_MAY:
        pytest.skip("a program that an engine starts may do this")
    assert await tried(threads, payload, touched.given, (), engine) is None
    assert touched.traces() == []


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_without_the_jail_every_payload_gets_through(
    threads: ThreadPoolExecutor, touched: Canaries, payload: str
) -> None:
    if payload in ONLY_ROOT and os.geteuid() != 0:
        pytest.skip("a plain user cannot do this anyway")
    found = await tried(threads, payload, touched.given, LAYERS)
    assert found is not None or touched.traces()
