"""The quickstart, run as it stands in the documentation: its files, its terminals, its commands."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "quickstart.md"
BLOCK = re.compile(r"(?:^<!-- ([^\n]+?) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITHIN = 60.0

pytestmark = [pytest.mark.service, pytest.mark.slow]


@dataclass
class Page:
    """What a reader saves and types; `terminals` is name → commands."""

    files: dict[str, str] = field(default_factory=dict)
    everywhere: str = ""
    terminals: dict[str, str] = field(default_factory=dict)
    commands: str = ""
    left_out: list[str] = field(default_factory=list)


def read_page(ports: dict[str, int]) -> Page:
    """The blocks of the page, with free ports in place of those it names."""
    text = PAGE.read_text(encoding="utf-8")
    for written, port in ports.items():
        assert f":{written}" in text or f"{written})" in text
        text = text.replace(written, str(port))
    page = Page()
    for mark, language, body in BLOCK.findall(text):
        kind, _, name = mark.partition(": ")
        match kind:
            case "file":
                page.files[name] = body
            case "terminal":
                page.terminals[name] = body
            case "in every terminal":
                page.everywhere += body
            case "not run here":
                page.left_out.append(body.strip())
            case "" if language == "sh":
                page.commands += body
            case _:
                raise AssertionError(f"What is to be done with this? {mark}\n{body}")
    return page


class Terminal:
    """A shell that runs some commands; what it says is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(4096):
            self.said += data.decode(errors="replace")
            self._news.set()
        self._news.set()

    async def until(self, text: str) -> None:
        """Wait until it has said so."""
        async with asyncio.timeout(WITHIN):
            while text not in self.said:
                assert not self._reading.done(), self.said
                self._news.clear()
                await self._news.wait()

    async def end(self) -> int:
        """Wait for its last command; its exit code."""
        async with asyncio.timeout(WITHIN):
            code = await self.process.wait()
            await self._reading
        return code


def _hears_ctrl_c() -> None:
    """Whoever starts the tests in the background has it ignored, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def open_terminal(script: str, environment: dict[str, str]) -> AsyncIterator[Terminal]:
    """As a reader would: in the clone, until Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_hears_ctrl_c,
    )
    shown = Terminal(process)
    try:
        yield shown
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                await shown.end()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await shown.end()
                raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="the page needs bash and curl"
)
async def test_the_quickstart_does_what_it_says(server_dir: Path) -> None:
    ports = {"3000": free_port(), "8099": free_port()}
    page = read_page(ports)
    folder = server_dir / "orders-shop"
    folder.mkdir()
    for name, body in page.files.items():
        (folder / name).write_text(body, encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PERMAFLOW_", "PYTHON"))}
    environment = {
        **kept,
        "HOME": str(server_dir),
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "PERMAFLOW_HTTP_PORT": str(ports["3000"]),
    }

    def shell(commands: str) -> str:
        return page.everywhere + commands

    async with (
        open_terminal(shell(page.terminals["receiver"]), environment) as receiver,
        open_terminal(shell(page.terminals["up"]), environment) as up,
    ):
        await up.until("Permaflow is ready")
        async with open_terminal(shell(page.commands), environment) as commands:
            code = await commands.end()
        assert code == 0, f"{commands.said}\n--- up ---\n{up.said}"
        await receiver.until("a desk")

    said = receiver.said.splitlines()
    assert [line.partition(" ")[2] for line in said if line.startswith("0")] == [
        '{"text":"New order: by hand","to_pay":142.8}',
        '{"text":"New order: a desk","to_pay":297.5}',
    ]
    assert commands.said.count("event: run_completed") == 1
    listed = re.findall(r"^[0-9a-f-]{36} +(\w+) +(\w+)", commands.said, re.MULTILINE)
    assert listed[-2:] == [("completed", "postgres"), ("completed", "api")]
    assert len(listed) == 2
    assert page.left_out == ["make demo"]
