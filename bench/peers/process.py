"""Child processes: every one in a group of its own, and none outlives the measurement."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peers.workload import PeerError

STOP_SECONDS = 10.0
TAIL = 400


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass(frozen=True, slots=True)
class Server:
    process: asyncio.subprocess.Process
    log: Path
    stop_signal: signal.Signals

    def check(self) -> None:
        """Raises if the server has ended by itself."""
        if self.process.returncode is not None:
            raise PeerError(
                f"{self.log.stem} ended with code {self.process.returncode}: {tail(self.log)}"
            )


def tail(log: Path) -> str:
    return log.read_bytes()[-TAIL:].decode(errors="replace").strip()


class Processes:
    """Servers and commands of one peer; leaving the context stops every group, the last first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[Server] = []
        logs.mkdir(parents=True, exist_ok=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.shield(self._stop())

    async def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Server:
        """Starts a server; its output goes to `<name>.log`."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                cwd=cwd,
                env={**os.environ, **(env or {})},
                user=user,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        server = Server(process, log, stop_signal)
        self._started.append(server)
        return server

    async def run(
        self,
        name: str,
        command: Sequence[str | Path],
        timeout: float,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> str:
        """Runs a command and returns what it printed; raises if it fails or takes too long."""
        server = await self.start(name, command, cwd=cwd, env=env, user=user)
        try:
            async with asyncio.timeout(timeout):
                code = await server.process.wait()
        except TimeoutError:
            raise PeerError(f"{name} took longer than {timeout:.0f} s") from None
        if code:
            raise PeerError(f"{name} failed with code {code}: {tail(server.log)}")
        return server.log.read_text(errors="replace")

    async def _stop(self) -> None:
        for server in reversed(self._started):
            if server.process.returncode is None:
                signal_group(server.process.pid, server.stop_signal)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_SECONDS):
                        await server.process.wait()
            signal_group(server.process.pid, signal.SIGKILL)
            await server.process.wait()


def signal_group(pid: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, which)


async def until(ready: Callable[[], bool], server: Server, timeout: float = 60.0) -> None:
    """Waits until `ready` says so; raises as soon as the server ends, or after `timeout`."""
    try:
        async with asyncio.timeout(timeout):
            while not await asyncio.to_thread(ready):
                server.check()
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise PeerError(
            f"{server.log.stem} was not ready within {timeout:.0f} s: {tail(server.log)}"
        ) from None


def listening(port: int) -> Callable[[], bool]:
    """Whether somebody accepts connections on that loopback port."""

    def ready() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ready
