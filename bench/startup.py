"""`permaflow up`, twice in one directory: from the command to ready, and to all gone again.

The first time makes the database; the second finds it. Everything that `up` starts is started: four
servers and six vertices.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.report import Line
from bench.stand import BenchError, last_line, scratch

TARGETS = (5.0, 2.0)
WITHIN = 60.0


async def bench(scale: str) -> dict[str, Any]:
    with scratch() as folder:
        first = await _up(folder)
        again = [await _up(folder) for _ in range(1 if scale == "quick" else 3)]
    best = min(again, key=lambda each: float(each["ready_s"]))
    return {"first": first, "again": best, "all_again": again}


async def _up(folder: Path) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("permaflow")), "up", "--json", "--port", "0"]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PERMAFLOW_")}
    began = time.monotonic()
    with (folder / "up.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            "--data-dir",
            str(folder / "data"),
            cwd=folder,
            env=variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), WITHIN)
        ready = time.monotonic() - began
        if not line:
            said = last_line(folder / "up.log")
            raise BenchError(f"`permaflow up` ended before it was ready: {said}")
        told = json.loads(line)
    except TimeoutError:
        raise BenchError(f"`permaflow up` was not ready within {WITHIN:g} s.") from None
    finally:
        began = time.monotonic()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    return {
        "ready_s": round(ready, 2),
        "told_s": told["seconds"],
        "stopped_s": round(time.monotonic() - began, 2),
        "processes": len(told["processes"]) + len(told["servers"]),
    }


def lines(result: dict[str, Any]) -> list[Line]:
    found = []
    for name, target, which in (
        ("the first time", TARGETS[0], result["first"]),
        ("after that", TARGETS[1], result["again"]),
    ):
        reached = which["ready_s"]
        found.append(
            Line(
                f"`permaflow up` to ready, {name}",
                f"{reached:.2f} s",
                f"≤ {target:g} s",
                reached <= target,
            )
        )
    return [*found, Line("stop of everything", f"{result['again']['stopped_s']:.2f} s")]
