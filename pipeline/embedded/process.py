"""Starting, recognising and ending processes, so that none is ever left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.embedded.accounts import Account

POLL = 0.01
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started; `account` None means as the present user.

    `variables` come on top of the bare environment that every server gets.
    """

    argv: tuple[str, ...]
    cwd: Path
    account: Account | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def spawn(launch: Launch, log: Path, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
    """Starts the process with its output going to `log`.

    On Linux the kernel sends `death_signal` when the thread that called this ends, so call it from
    a thread that lives as long as the process should: the one that runs the event loop. The process
    has its own session: Ctrl-C in a terminal reaches the supervisor alone, which stops the servers
    in order.
    """
    account = launch.account
    with log.open("ab") as output, warnings.catch_warnings():
        # Newer Pythons warn of any fork beside threads; the child below runs two system calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            launch.argv,
            cwd=launch.cwd,
            env={**environment(), **launch.variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
            preexec_fn=_death_signal(death_signal, os.getpid()),
        )


def environment() -> dict[str, str]:
    """No locale, no time zone and no PG* variable of the user's reaches a server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _death_signal(death_signal: signal.Signals, parent: int) -> Callable[[], None] | None:
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl
    number = int(death_signal)

    def arrange() -> None:
        # Runs in the child after its change of user, which would undo it.
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


async def run_once(argv: Sequence[str], cwd: Path, account: Account | None, log: Path) -> int:
    """Runs a program to its end and gives its exit status; what it prints goes to `log`."""
    process = spawn(Launch(tuple(argv), cwd, account), log, signal.SIGKILL)
    try:
        await until_exit(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode


async def until_exit(process: subprocess.Popen[bytes]) -> None:
    """Waits without using the processor where the kernel can tell (pidfd), else by polling."""
    if not hasattr(os, "pidfd_open"):
        while process.poll() is None:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(POLL)
        return
    if process.poll() is not None:
        return
    file = os.pidfd_open(process.pid)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(file, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(file)
        os.close(file)
    process.wait()


# --- processes of an earlier owner ------------------------------------------------------------


def is_alive(pid: int) -> bool:
    """False also for a zombie, which a container without an init may never reap."""
    return exists(pid) and _state(pid) != "Z"


def exists(pid: int) -> bool:
    """Whether the number is taken, be it by a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return _ps(pid, "command")


def remember(path: Path, pid: int) -> None:
    path.write_text(json.dumps({"pid": pid, "born": _born(pid)}) + "\n")


def remembered(path: Path) -> int | None:
    """The pid that `remember` noted, if that very process still lives."""
    try:
        noted = json.loads(path.read_text())
        pid, born = int(noted["pid"]), noted["born"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if is_alive(pid) and _born(pid) == born else None


async def end(pid: int, stop: signal.Signals, patience: float = 5.0) -> None:
    """Asks a process that is not our child to stop, then kills it."""
    for number in (stop, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not is_alive(pid):
                return
            await asyncio.sleep(POLL)


def _born(pid: int) -> str:
    """What tells this process from a later one with the same pid."""
    fields = _stat(pid)
    return fields[19] if fields else _ps(pid, "lstart")


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else _ps(pid, "stat")[:1]


def _stat(pid: int) -> list[str]:
    """proc(5): the fields after the command's name, from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _ps(pid: int, column: str) -> str:
    if sys.platform == "linux":
        return ""
    done = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def end_those_in(folder: Path) -> int:
    """kill -9 for every process that works in `folder`; how many there were. Linux only.

    A server's own children may outlive it: PostgreSQL's hold its shared memory meanwhile, and a
    new server refuses to start beside them.
    """
    ended = 0
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            inside = entry.readlink().is_relative_to(folder)
        except OSError:
            continue  # It is gone, or somebody else's.
        if inside:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry.parent.name), signal.SIGKILL)
                ended += 1
    return ended
