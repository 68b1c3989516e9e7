"""`permaflow up` and `permaflow serve`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.up import Running


def run_up(flags: Mapping[str, object], as_json: bool) -> None:
    """Start everything, say where it is, and wait for Ctrl-C."""
    started_at = time.monotonic()
    # The nursery is forked before anything else, so that its imports run beside ours.
    from pipeline.nursery import Nursery

    nursery = Nursery()
    import uvloop

    from pipeline.settings import load_settings
    from pipeline.up import Up

    settings = load_settings(**flags)

    async def run() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        supervisor = Up(settings, nursery, started_at)
        await supervisor.run(stopped, lambda running: _tell(running, as_json))

    try:
        uvloop.run(run())
    finally:
        nursery.close()


def _tell(running: Running, as_json: bool) -> None:
    if as_json:
        import orjson

        facts = {
            "api_url": running.api_url,
            "api_key": running.api_key,
            "seconds": round(running.seconds, 3),
            "urls": {
                name.removeprefix("PERMAFLOW_").lower(): running.env[name]
                for name in (
                    "PERMAFLOW_DATABASE_URL",
                    "PERMAFLOW_NATS_URL",
                    "PERMAFLOW_KAFKA_BOOTSTRAP",
                    "PERMAFLOW_REDIS_URL",
                )
            },
            "servers": dict(running.servers),
            "processes": {str(p.pid): p.vertex for p in running.processes.values()},
        }
        print(orjson.dumps(facts).decode(), flush=True)
        return
    print(f"Permaflow is ready after {running.seconds:.1f} s: {running.api_url}")
    print("  key       export PERMAFLOW_API_KEY=$(cat .permaflow/api-key)")
    print(f"  database  {running.env['PERMAFLOW_DATABASE_URL']}")
    print(f"  vertices  {', '.join(p.vertex for p in running.processes.values())}")
    print("Ctrl-C stops it.", flush=True)


def run_vertex(vertex: str, stages: Sequence[str]) -> None:
    """Serve one vertex in this process."""
    import uvloop

    from pipeline import telemetry
    from pipeline.serve import serve
    from pipeline.settings import load_settings

    settings = load_settings()
    telemetry.configure(settings.log_level, settings.log_format)

    def ready(port: int) -> None:
        print(f"{vertex} is ready; /readyz and /metrics are on port {port}", file=sys.stderr)
        with contextlib.suppress(KeyError):
            # systemd and scripts may wait for this file.
            path = os.environ["PERMAFLOW_READY_FILE"]
            with open(path, "w") as file:
                file.write(f"{port}\n")

    uvloop.run(serve(vertex, settings, stages=stages, ready=ready))
