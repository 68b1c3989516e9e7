"""`permaflow up` as a user starts it: the console script, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("permaflow")
READY_WITHIN = 90.0
STOPS_WITHIN = 60.0


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Nothing of the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERMAFLOW_")}
    return {**kept, "PERMAFLOW_DATA_DIR": str(data_dir), "NO_COLOR": "1", **more}


@dataclass(frozen=True, slots=True)
class Permaflow:
    """The command, with the data directory that it works on."""

    data_dir: Path

    def __call__(
        self, *arguments: object, given: str | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=self.data_dir.parent,
            env=environment(self.data_dir, **more),
            input=given,
            capture_output=True,
            text=True,
            timeout=90,
        )

    def json(self, *arguments: object) -> Any:
        """What a command answers with --json; it must succeed."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def started(self, *arguments: object, **more: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; killed at the end if it still does."""
        with subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=self.data_dir.parent,
            env=environment(self.data_dir, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
                process.communicate()

    @contextlib.contextmanager
    def up(self, *arguments: object, **more: str) -> Iterator[Up]:
        """`permaflow up`, ready; stopped in order at the end."""
        log = self.data_dir.with_suffix(".log")
        with (
            log.open("a") as errors,
            subprocess.Popen(
                [COMMAND, "up", "--json", "--port", "0", *map(str, arguments)],
                cwd=self.data_dir.parent,
                env=environment(self.data_dir, **more),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                readable, _, _ = select.select([process.stdout], [], [], READY_WITHIN)
                line = process.stdout.readline() if readable else ""
                assert line, log.read_text()
                yield Up(process, json.loads(line), self)
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                    process.wait(STOPS_WITHIN)
            finally:
                process.kill()
                process.wait()


@dataclass(frozen=True, slots=True)
class Up:
    """A running `permaflow up`, and what it said of itself."""

    process: subprocess.Popen[str]
    facts: Mapping[str, Any]
    permaflow: Permaflow

    @property
    def pids(self) -> set[int]:
        """The servers and the vertices."""
        return {*self.facts["servers"].values(), *map(int, self.facts["processes"])}

    def pid(self, vertex: str) -> int:
        return next(int(pid) for pid, name in self.facts["processes"].items() if name == vertex)


@dataclass
class Hooks:
    """An HTTP server that keeps what is posted to it."""

    port: int
    received: SimpleQueue[tuple[str, Any]] = field(default_factory=SimpleQueue)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def hooks() -> Iterator[Hooks]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            found.received.put((self.path, json.loads(body)))
            self.send_response(204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Hooks(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture
def permaflow(server_dir: Path) -> Permaflow:
    """The command on a fresh data directory."""
    return Permaflow(server_dir / "data")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, hooks: Hooks) -> Iterator[Up]:
    """One `permaflow up` for all tests that only use it."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="permaflow-test-"))
    folder.chmod(0o711)
    try:
        flags = (
            "--functions",
            "pipeline.demo.functions",
            "--http-allow",
            f"127.0.0.1:{hooks.port}",
        )
        with Permaflow(folder / "data").up(*flags) as up:
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def gone(pid: int, within: float = STOPS_WITHIN) -> bool:
    """Whether a process ends in time; one that is gone already has."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], within)[0])
    finally:
        os.close(watch)


def processes_of(data_dir: Path) -> set[int]:
    """Every living process whose command line names the data directory."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(data_dir).encode() in path.read_bytes():
                found.add(int(path.parent.name))
    return found
