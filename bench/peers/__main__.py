"""Measures the peers: `python -m bench.peers restate dbos --json --runs 2000 --steps 10`."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from bench.peers.measure import PEERS, ROOT, measure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="peer", help=f"of {', '.join(PEERS)}; all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0, help="the most for each phase")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the environments are kept")
    parser.add_argument("--database-url", help="PostgreSQL for DBOS, instead of one of its own")
    parser.add_argument("--redis-url", help="Valkey or Redis for Celery, instead of its own")
    given = parser.parse_args()
    for name in given.names:
        if name not in PEERS:
            parser.error(f"there is no peer {name!r}; choose from {', '.join(PEERS)}")
    if given.runs < 1 or given.steps < 1 or given.seconds <= 0:
        parser.error("--runs, --steps and --seconds must be positive")
    return given


async def _measure(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measure(
        given.names or PEERS,
        given.runs,
        given.steps,
        given.root,
        seconds=given.seconds,
        database_url=given.database_url,
        redis_url=given.redis_url,
    )


def _line(name: str, result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{name:10} {result['error']}"
    return (
        f"{name:10} {result['version']:10} {result['throughput_steps_s']:>10,.0f} steps/s"
        f"   step p50 {result['step_p50_ms']:.2f} ms, p99 {result['step_p99_ms']:.2f} ms"
        f"   {result['durability']}"
    )


def main() -> None:
    given = _arguments()
    try:
        results = asyncio.run(_measure(given))
    except asyncio.CancelledError:
        sys.exit("stopped, and all that was started with it")
    if given.json:
        print(json.dumps(results, indent=2))
    else:
        print("\n".join(_line(name, result) for name, result in results.items()))


main()
