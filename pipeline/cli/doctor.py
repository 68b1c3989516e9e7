"""`permaflow doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import FAILED, Json, as_json, note, table


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where `permaflow up` keeps its data.")
    ] = None,
    json: Json = False,
) -> None:
    """Look at everything that Permaflow needs, and say what to do. Exit code 1 if anything fails.

    \b
    permaflow doctor
    permaflow doctor --json | jq '.checks[] | select(.state == "fail")'
    """
    from pipeline.cli import checks
    from pipeline.cli.client import wait_for

    lines = wait_for(checks.run(checks.settings_of(data_dir)))
    worst = {checks.FAIL, checks.WARN} & {line.state for line in lines}
    failed = checks.FAIL in worst
    if json:
        as_json({"ok": not failed, "checks": [asdict(line) for line in lines]})
    else:
        table(
            ("", "check", "message", "what to do"),
            [(line.state, line.check, line.message, line.advice) for line in lines],
        )
        note(
            "Something fails."
            if failed
            else "Nothing fails; see the warnings."
            if worst
            else "It works."
        )
    if failed:
        raise typer.Exit(FAILED)
