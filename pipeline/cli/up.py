"""`permaflow up` and `permaflow serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from permaflow.errors import SettingsError
from pipeline.cli.show import Json, as_json, note

if TYPE_CHECKING:
    from pipeline.up import Running

URLS = ("DATABASE_URL", "NATS_URL", "KAFKA_BOOTSTRAP", "REDIS_URL")


def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded servers keep their data.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the gateway; 0 picks a free one.")
    ] = None,
    cdc_tables: Annotated[
        str | None, typer.Option(help="Tables to watch for changes, `schema.table`, by commas.")
    ] = None,
    kafka_topics: Annotated[
        str | None, typer.Option(help="Debezium topics to read, by commas.")
    ] = None,
    http_allow: Annotated[
        str | None, typer.Option(help="Private `host:port`s that HTTP steps may reach, by commas.")
    ] = None,
    functions: Annotated[
        str | None, typer.Option(help="Modules with functions for code_function, by commas.")
    ] = None,
    json: Json = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    Every vertex gets a process. PostgreSQL, NATS, a Kafka-compatible broker and Valkey are started
    from their wheels, unless PERMAFLOW_DATABASE_URL, PERMAFLOW_NATS_URL, PERMAFLOW_KAFKA_BOOTSTRAP
    or PERMAFLOW_REDIS_URL names others.

    \b
    permaflow up
    permaflow up --port 0 --json | jq .api_url
    permaflow up --cdc-tables public.orders --http-allow 127.0.0.1:8080
    """
    import asyncio
    import signal
    import time

    started_at = time.monotonic()
    # The fork server is forked before anything else, so that its imports run beside ours.
    from pipeline.forkserver import ForkServer

    forks = ForkServer()
    import uvloop

    from pipeline.settings import load_settings, unknown_variables
    from pipeline.up import Up

    for unknown in unknown_variables():
        note(f"permaflow: {unknown}")
    settings = load_settings(
        data_dir=data_dir,
        http_port=port,
        cdc_tables=cdc_tables,
        kafka_topics=kafka_topics,
        http_allow=http_allow,
        functions=functions,
    )
    try:
        _find_modules("PERMAFLOW_FUNCTIONS", settings.functions)
        _find_modules("PERMAFLOW_TASK_TYPES", settings.task_types)
        _find_modules("PERMAFLOW_PLUGINS", settings.plugins)
    except SettingsError:
        forks.close()
        raise

    async def run() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        supervisor = Up(settings, forks, started_at)
        await supervisor.run(stopped, lambda running: _tell(running, settings.data_dir, json))

    try:
        uvloop.run(run())
    finally:
        forks.close()


def serve(
    vertex: Annotated[
        str,
        typer.Argument(help="gateway, ingest, orchestrator, runner, completion or clock."),
    ],
    stage: Annotated[
        list[str] | None,
        typer.Option(help="For a runner: a stage to serve; may be given several times."),
    ] = None,
    json: Json = False,
) -> None:
    """Run one process of one vertex, until SIGTERM. Run as many as the load wants.

    With PERMAFLOW_READY_FILE set, its ops port is written there once it serves.

    \b
    permaflow serve orchestrator
    permaflow serve runner --stage http --stage code
    """
    import os
    from pathlib import Path

    import uvloop

    from pipeline import telemetry
    from pipeline.serve import VERTICES
    from pipeline.serve import serve as serve_vertex
    from pipeline.settings import load_settings, unknown_variables

    if vertex not in VERTICES:
        raise typer.BadParameter(f"There is no vertex {vertex!r}; there are {', '.join(VERTICES)}.")
    settings = load_settings()
    telemetry.configure(settings.log_level, settings.log_format)
    for unknown in unknown_variables():
        telemetry.log.warning(
            telemetry.SETTING_UNKNOWN, variable=unknown.name, nearest=unknown.nearest
        )
    if vertex == "runner":
        _find_modules("PERMAFLOW_FUNCTIONS", settings.functions)

    def ready(port: int) -> None:
        if json:
            as_json({"vertex": vertex, "pid": os.getpid(), "ops_port": port})
        else:
            note(f"{vertex} is ready; /readyz and /metrics are on port {port}")
        if path := os.environ.get("PERMAFLOW_READY_FILE"):
            Path(path).write_text(f"{port}\n")

    uvloop.run(serve_vertex(vertex, settings, stages=stage or (), ready=ready))


def _find_modules(setting: str, names: str) -> None:
    """Now rather than with the first step that wants one. Raises `SettingsError`."""
    from importlib.util import find_spec

    from pipeline.settings import split

    for name in split(names):
        try:
            found = find_spec(name.partition(":")[0])
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise SettingsError(
                f"{setting} names {name!r}, and there is no such module. Install it, or put its "
                "folder on PYTHONPATH: the working directory is not searched by itself."
            )


def _tell(running: Running, data_dir: Path, json: bool) -> None:
    if json:
        as_json(
            {
                "api_url": running.api_url,
                "api_key": running.api_key,
                "seconds": round(running.seconds, 3),
                "urls": {name.lower(): running.env[f"PERMAFLOW_{name}"] for name in URLS},
                "servers": dict(running.servers),
                "processes": {str(p.pid): p.vertex for p in running.processes.values()},
                "ops": {p.vertex: p.port for p in running.processes.values()},
            }
        )
        return
    vertices = ", ".join(p.vertex for p in running.processes.values())
    print(f"Permaflow is ready after {running.seconds:.1f} s: {running.api_url}")
    print(f"  key       export PERMAFLOW_API_KEY=$(cat {data_dir / 'api-key'})")
    print(f"  database  {running.env['PERMAFLOW_DATABASE_URL']}")
    print(f"  vertices  {vertices}")
    print("  look      permaflow workflow list, permaflow stage list, permaflow doctor")
    print("Ctrl-C stops it.", flush=True)
