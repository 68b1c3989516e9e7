"""`permaflow`: the command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="permaflow",
    help="Durable, event-driven workflows on a pipeline that never changes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"permaflow {installed_version('permaflow')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def version() -> None:
    """Print the version."""
    _print_version(True)


@app.command()
def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded servers keep their data.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the gateway; 0 picks a free one.")
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
    json: Json = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    Every vertex gets a process. PostgreSQL, NATS, a Kafka-compatible broker and Valkey are started
    from their wheels, unless PERMAFLOW_DATABASE_URL, PERMAFLOW_NATS_URL, PERMAFLOW_KAFKA_BOOTSTRAP
    or PERMAFLOW_REDIS_URL names others.
    """
    from pipeline.cli.up import run_up

    flags = {
        "data_dir": data_dir,
        "http_port": port,
        "cdc_tables": cdc_tables,
        "kafka_topics": kafka_topics,
        "http_allow": http_allow,
    }
    run_up(flags, json)


@app.command()
def serve(
    vertex: Annotated[
        str,
        typer.Argument(help="gateway, ingest, orchestrator, runner, completion or clock."),
    ],
    stage: Annotated[
        list[str] | None,
        typer.Option(help="For a runner: a stage to serve; may be given several times."),
    ] = None,
) -> None:
    """Run one process of one vertex, until SIGTERM. Run as many as the load wants."""
    from pipeline.cli.up import run_vertex

    run_vertex(vertex, stage or ())


def main() -> None:
    """Entry point of the console script: an expected error is a sentence and exit code 1."""
    from permaflow.errors import PermaflowError

    try:
        app()
    except PermaflowError as error:
        print(f"permaflow: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
