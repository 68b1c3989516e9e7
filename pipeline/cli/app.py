"""The commands, and how they end. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from permaflow.errors import PermaflowError
from pipeline.cli import (
    approvals,
    catalogue,
    db,
    demo,
    doctor,
    keys,
    new,
    runs,
    secrets,
    stages,
    up,
    workflows,
)
from pipeline.cli.main import version
from pipeline.cli.show import FAILED, INTERRUPTED, USAGE, CommandError, Json, as_json, complain

app = typer.Typer(
    name="permaflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"permaflow {version()}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Durable, event-driven workflows on a pipeline that never changes.

    \b
    permaflow demo --seconds 20           see it work
    permaflow up                          run everything on this machine
    permaflow workflow apply flow.json --activate
    permaflow run start flow --data '{"amount": 120}' --wait

    Every command takes --json: data goes to stdout, everything else to stderr. Exit codes: 0 done,
    1 failed, 2 not understood, 124 timed out. Settings come from PERMAFLOW_… in the environment or
    a .env file; what a running `permaflow up` knows need not be set.
    """


@app.command("version")
def show_version(json: Json = False) -> None:
    """Print the version."""
    if json:
        as_json({"name": "permaflow", "version": version()})
    else:
        print(f"permaflow {version()}")


app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("serve")(up.serve)
app.add_typer(workflows.app, name="workflow")
app.add_typer(runs.app, name="run")
app.add_typer(approvals.app, name="approval")
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(new.app, name="new")
app.add_typer(stages.app, name="stage")
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="key")
app.add_typer(secrets.app, name="secret")
app.command("doctor")(doctor.doctor)


def run(arguments: Sequence[str]) -> int:
    """Run a command and give its exit code; an error is a sentence, never a traceback."""
    wants_json = "--json" in arguments
    try:
        code = app(list(arguments), prog_name="permaflow", standalone_mode=not wants_json)
    except CommandError as error:
        return error.complain(wants_json)
    except PermaflowError as error:
        return complain(wants_json, error.code, str(error), FAILED)
    except Abort:
        return INTERRUPTED
    except TyperException as error:  # only with --json; typer tells people by itself
        return complain(True, "usage", error.format_message(), USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        with suppress(OSError):  # it may be our output that is full
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        told = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        return complain(wants_json, "system", f"{told}.", FAILED)
    return code if isinstance(code, int) else 0
