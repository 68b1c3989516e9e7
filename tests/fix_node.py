"""Workers in Node: the example's code with its packages, in processes of the test.

node_worker     starts one: `await node_worker("worker.mjs")`; ended with the test
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "node-worker"
PROBE = Path(__file__).parent / "service" / "node_probe.mjs"
OLDEST = 20
WITHIN = 20.0


class NodeWorker:
    """A worker in a process; its output is kept line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def said(self, wanted: str) -> str:
        """The next line that starts so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN):
            while raw := await self.process.stdout.readline():
                line = raw.decode().rstrip()
                self.lines.append(line)
                if line.startswith(wanted):
                    return line
        raise AssertionError(f"{wanted!r} was not said: {self.lines}")

    async def stop(self) -> int:
        """End it in order; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(WITHIN):
            return await self.process.wait()

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


StartNode = Callable[..., Awaitable[NodeWorker]]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example and the probe with the packages that they need; skips where there is no Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are not installed; workers in Node are not tested.")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30).stdout
    if int(version.lstrip("v").partition(".")[0]) < OLDEST:
        pytest.skip(f"Node {version.strip()} is older than {OLDEST}; workers are not tested.")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "permaflow.mjs", "worker.mjs", ".npmrc"):
        shutil.copy(EXAMPLE / name, folder)
    shutil.copy(PROBE, folder)
    if (EXAMPLE / "node_modules").is_dir():
        (folder / "node_modules").symlink_to(EXAMPLE / "node_modules")
        return folder
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        pytest.skip(f"The packages of the Node worker cannot be installed: {last}")
    return folder


@pytest.fixture
async def node_worker(node_folder: Path, nats_url: str) -> AsyncIterator[StartNode]:
    async with AsyncExitStack() as stack:

        async def start(script: str, **more: str) -> NodeWorker:
            process = await asyncio.create_subprocess_exec(
                str(shutil.which("node")),
                script,
                cwd=node_folder,
                env={"PERMAFLOW_NATS_URL": nats_url, **more},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            worker = NodeWorker(process)

            async def end() -> None:
                worker.kill()
                await process.communicate()

            stack.push_async_callback(end)
            await worker.said("ready")
            return worker

        yield start
