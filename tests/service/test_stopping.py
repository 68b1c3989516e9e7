"""How long a process of a vertex takes to end when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from pipeline import processes, runner, serve

pytestmark = pytest.mark.service

VERTEX = Path(__file__).parents[1] / "faults" / "vertex.py"
AT_ONCE = 5.0
"""Far less than the time that work would get; on a quiet machine it is a fifth of a second."""


@pytest.fixture
def env(database_url: str, nats_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PERMAFLOW_DATABASE_URL": database_url,
        "PERMAFLOW_NATS_URL": nats_url,
        "PERMAFLOW_HTTP_PORT": "0",
        "PERMAFLOW_READY_FILE": str(tmp_path / "ready"),
        "PYTHONPATH": str(VERTEX.parents[2]),
    }


async def started(env: dict[str, str], *arguments: str) -> Process:
    """A process that is ready."""
    file = Path(env["PERMAFLOW_READY_FILE"])
    process = await asyncio.create_subprocess_exec(sys.executable, str(VERTEX), *arguments, env=env)
    async with asyncio.timeout(60):
        while not file.exists():  # noqa: ASYNC240 - it is another process
            assert process.returncode is None
            await asyncio.sleep(0.02)
    return process


async def ended(process: Process) -> tuple[int, float]:
    """Its status, and the seconds that it took to end."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        status = await process.wait()
    return status, time.monotonic() - begun


@pytest.mark.parametrize("vertex", ["runner", "orchestrator", "gateway"])
async def test_a_vertex_with_nothing_to_do_ends_at_once(env: dict[str, str], vertex: str) -> None:
    status, seconds = await ended(await started(env, vertex))
    assert status == 0
    assert seconds < AT_ONCE


async def test_a_vertex_that_cannot_stop_ends_all_the_same(env: dict[str, str]) -> None:
    status, seconds = await ended(await started(env, "clock", "never_stops"))
    assert status == 1
    assert seconds < 30


def test_whoever_waits_for_a_process_waits_longer_than_it_takes() -> None:
    assert runner.GRACE + 1 <= serve.DRAIN
    assert serve.DRAIN + serve.GOODBYE < processes.STOP_WITHIN
    compose = (VERTEX.parents[2] / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    assert f"stop_grace_period: {processes.STOP_WITHIN:g}s" in compose
