"""`permaflow demo`: everything at work on real input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import FAILED, Json, note


def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End by itself after so long; else Ctrl-C ends it.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=5_000, help="Orders a second.")] = 20.0,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data here; else it is gone at the end.")
    ] = None,
    json: Json = False,
) -> None:
    """Let a shop take orders, and watch workflows answer them.

    Everything is started on this machine. The shop inserts and updates rows of `orders` in
    PostgreSQL; beside it payments come in on a Kafka topic, as Debezium would send them. Both start
    workflows; what they notify arrives at a receiver on this machine. At the end the runs are
    counted against what the shop did: exit code 1 if one is lost or doubled.

    \b
    permaflow demo
    permaflow demo --seconds 20 --rate 50
    permaflow demo --seconds 20 --json | jq .agrees
    """
    import os
    import shutil
    import tempfile

    from pipeline.embedded.directory import DataDirectory
    from pipeline.forkserver import ForkServer

    own = Path(tempfile.mkdtemp(prefix="permaflow-demo-")) if data_dir is None else None
    if own is not None:
        own.chmod(0o711)  # root's PostgreSQL runs under another account and must pass through
    directory = DataDirectory(own / "data" if own is not None else data_dir or Path())
    code = FAILED
    try:
        directory.create()
        path = directory.path / "logs" / "vertices.log"
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # Forked before anything else is imported, so that its imports run beside ours.
        forks = ForkServer(log)
        try:
            from pipeline.demo.demo import run_demo

            code = run_demo(forks, directory.path, seconds, rate, json)
        finally:
            forks.close()
            os.close(log)
            if code == FAILED:
                note(f"What happened is in {directory.path}; the vertices' log is {path}.")
    finally:
        if own is not None and code != FAILED:
            shutil.rmtree(own, ignore_errors=True)
    raise typer.Exit(code)
