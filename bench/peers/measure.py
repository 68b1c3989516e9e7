"""The call that the bench harness imports: measure some peers, one after the other."""

import functools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from bench.peers import celery, dbos, restate, temporal
from bench.peers.environment import Home, environment
from bench.peers.workload import Figures, PeerError, Workload

PEERS = ("restate", "dbos", "temporal", "celery")
ROOT = Path(".permaflow/peers")


async def measure(
    names: Iterable[str] = PEERS,
    runs: int = 2_000,
    steps: int = 10,
    root: Path = ROOT,
    *,
    seconds: float = 30.0,
    database_url: str | None = None,
    redis_url: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Peer → its figures, or `{"error": sentence}` where something failed.

    Environments are made below `root` where they are missing, which takes minutes and needs the
    package registries. Nothing that was started is left running.
    """
    workload = Workload(runs=runs, steps=steps, seconds=seconds)
    measured: dict[str, Callable[[Home, Workload], Awaitable[Figures]]] = {
        "restate": restate.measure,
        "dbos": functools.partial(dbos.measure, database_url=database_url),
        "temporal": temporal.measure,
        "celery": functools.partial(celery.measure, redis_url=redis_url),
    }
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            home = await environment(name, root)
            try:
                results[name] = (await measured[name](home, workload)).document()
            finally:
                home.clear_data()
        except (PeerError, OSError) as error:
            results[name] = {"error": f"{name}: {error}"}
    return results
