"""`python -m bench [NAME …] [--json] [--quick | --long]`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.report import Line
from permaflow.errors import PermaflowError
from pipeline import telemetry

BENCHMARKS = {
    "throughput": "bench.throughput",
    "latency": "bench.latency",
    "loop": "bench.loops",
    "large": "bench.large",
    "matching": "bench.matching",
    "cdc": "bench.cdc",
    "webhook": "bench.webhook",
    "idle": "bench.idle",
    "waiting": "bench.waiting",
    "startup": "bench.startup",
    "snippet": "bench.snippet",
    "peers": "bench.against",
}
PEERS = "peers"


def _arguments() -> argparse.Namespace:
    names = ", ".join(BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Permaflow on this machine; without names, everything.",
        epilog=f"The benchmarks: {names}. See bench/README.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny counts, to see that all works")
    size.add_argument("--long", action="store_true", help="more and longer than usual")
    parser.add_argument("--json", action="store_true", help="print the JSON document, no table")
    parser.add_argument("--no-peers", action="store_true", help="leave the other engines out")
    parser.add_argument("--output", type=Path, help="where to write the document")
    parser.add_argument(
        "--profile",
        default="",
        metavar="VERTEX",
        help="run this vertex under cProfile (throughput and latency only)",
    )
    given = parser.parse_args()
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; choose from {names}")
    if not given.names:
        without = given.no_peers or given.quick
        given.names = [name for name in BENCHMARKS if name != PEERS or not without]
    if PEERS in given.names:
        # Peers are compared with what was measured in the same call.
        first = [name for name in ("throughput", "latency") if name not in given.names]
        given.names = [*first, *(name for name in given.names if name != PEERS), PEERS]
    return given


async def _run(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], list[Line]]:
    """A benchmark gets what it has a parameter for, of all that is given."""
    module = importlib.import_module(BENCHMARKS[name])
    wanted = inspect.signature(module.bench).parameters
    try:
        result = await module.bench(**{key: given[key] for key in wanted})
    except (PermaflowError, OSError) as error:
        return {"error": str(error)}, [Line("failed", str(error), met=False)]
    return result, module.lines(result)


async def _everything(given: argparse.Namespace) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    scale = "quick" if given.quick else "long" if given.long else "full"
    facts = report.machine()
    results: dict[str, Any] = {}
    lines: dict[str, list[Line]] = {}
    for name in given.names:
        began = time.monotonic()
        print(f"{name} … ", end="", file=sys.stderr, flush=True)
        parameters = {"scale": scale, "profile": given.profile, "ours": results}
        results[name], lines[name] = await _run(name, parameters)
        print(f"{time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return report.document(scale, results, lines, facts)


def main() -> int:
    given = _arguments()
    telemetry.configure("WARNING", "console")
    try:
        whole = asyncio.run(_everything(given))
    except asyncio.CancelledError:
        print("\nstopped, and all that was started with it", file=sys.stderr)
        return 130
    except PermaflowError as error:
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(whole, indent=2))
    else:
        report.print_table(whole)
    if given.output or not given.quick:
        print(f"written to {report.write(whole, given.output)}", file=sys.stderr)
    return 1 if any("error" in result for result in whole["results"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
