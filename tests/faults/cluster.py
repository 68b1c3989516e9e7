"""Real servers and real processes that a fault test may kill, stop and cut at any moment."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.bootstrap import bootstrap
from pipeline.embedded.stack import Stack
from pipeline.ops import open_socket
from tests.faults.effects import WITNESS

START_WITHIN = 120.0


@dataclass
class Member:
    """One process of a vertex, started again whenever it ends."""

    name: str
    vertex: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    stopped: bool = False


@dataclass
class Cluster:
    """PostgreSQL, NATS and some processes of each vertex. `plant` names a planted bug; `settings`
    are variables that all of them get besides. `prepare` is called once the servers are there."""

    folder: Path
    vertices: Sequence[str]
    plant: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Cluster], Awaitable[None]] | None = None
    api_key: str = ""
    port: int = 0
    members: list[Member] = field(default_factory=list)
    stack: Stack | None = None
    _keeper: asyncio.Task[None] | None = None
    _closing: bool = False

    async def start(self, exit_stack: AsyncExitStack) -> Cluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stack = Stack(self.folder / "data", servers=frozenset({"postgres", "nats"}))
        await exit_stack.enter_async_context(self.stack)
        exit_stack.push_async_callback(self.close)
        assert self.stack.database_url
        self.api_key = await bootstrap(self.stack.database_url, self.folder / "api-key")
        if self.prepare is not None:
            await self.prepare(self)
        with open_socket("127.0.0.1", 0) as listener:
            self.port = listener.getsockname()[1]
        for number, vertex in enumerate(self.vertices):
            name = f"{vertex}-{number}"
            self.members.append(Member(name, vertex, self.folder / f"{name}.log"))
        for member in self.members:
            self._spawn(member)
        await self._until_ready()
        self._keeper = asyncio.create_task(self._keep())
        return self

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    def pick(self, vertex: str) -> list[Member]:
        return [member for member in self.members if member.vertex == vertex]

    def signal(self, member: Member, number: signal.Signals) -> bool:
        """Whether the process was there to get it."""
        if member.process is None or member.process.poll() is not None:
            return False
        member.process.send_signal(number)
        return True

    async def close(self) -> None:
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.kill()
                await asyncio.to_thread(member.process.wait)

    async def wipe_jetstream(self) -> int:
        """Delete NATS's store on disk while the server is down; how many bytes there were."""
        assert self.stack is not None
        server = self.stack.servers["nats"]
        await server.kill()
        removed = 0
        for store in (self.folder / "data").rglob("jetstream"):
            removed += sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
            shutil.rmtree(store)
        return removed

    def _spawn(self, member: Member) -> None:
        assert self.stack is not None
        environment = {
            **os.environ,
            "PERMAFLOW_DATABASE_URL": self.stack.database_url or "",
            "PERMAFLOW_NATS_URL": self.stack.nats_url or "",
            "PERMAFLOW_TASK_TYPES": "tests.faults.effects",
            "PERMAFLOW_RECONCILE_AFTER": "2",
            "PERMAFLOW_CDC_TABLES": "auto",
            "PERMAFLOW_HTTP_PORT": str(self.port),
            "PERMAFLOW_LOG_LEVEL": "WARNING",
            "PERMAFLOW_READY_FILE": str(self.folder / f"{member.name}.ready"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            WITNESS: str(self.witness),
            **self.settings,
        }
        command = [sys.executable, "-m", "tests.faults.vertex", member.vertex]
        if self.plant:
            command.append(self.plant)
        with member.log.open("ab") as log:
            member.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    async def _until_ready(self) -> None:
        async with asyncio.timeout(START_WITHIN):
            for member in self.members:
                while not (self.folder / f"{member.name}.ready").exists():
                    assert member.process is not None
                    if member.process.poll() is not None:
                        raise RuntimeError(member.log.read_text()[-3000:])
                    await asyncio.sleep(0.02)

    async def _keep(self) -> None:
        """Start again what ended, as any supervisor does."""
        while not self._closing:
            for member in self.members:
                if member.process is not None and member.process.poll() is not None:
                    member.deaths += 1
                    self._spawn(member)
            await asyncio.sleep(0.05)
