"""`permaflow new`: the beginnings of plug-ins."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from pipeline.cli.show import CommandError, Json, as_json, note, say

app = typer.Typer(no_args_is_help=True, help="Begin a plug-in.")

_NAME = re.compile(r"[a-z][a-z0-9_.\-]{0,59}(/[a-z0-9][a-z0-9_.\-]{0,59})?")
_TEMPLATES = Path(__file__).with_name("templates")


@app.command("task-type")
def task_type(
    name: Annotated[str, typer.Argument(help="Its name: sms/send, or action_fax.")],
    into: Annotated[Path, typer.Option(help="The folder that the package's folder goes into.")] = (
        Path()
    ),
    label: Annotated[str | None, typer.Option(help="What people read; else made of the name.")] = (
        None
    ),
    json: Json = False,
) -> None:
    """Write a package with a task type and its test.

    \b
    permaflow new task-type sms/send
    cd permaflow-sms-send && python -m pytest

    One file holds the type, one its test by the conformance kit, and pyproject.toml the entry
    point by which an installation finds it.
    """
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is no name for a task type; write sms/send or action_fax: a-z, 0-9, _, - "
            "and ., with one / at most.",
            code="bad_name",
        )
    words = re.sub(r"[^a-z0-9]+", " ", name).split()
    module = "_".join(["permaflow", *words])
    folder = into / module.replace("_", "-")
    if folder.exists():
        raise CommandError(f"{folder} exists already.", code="exists")
    parts = {
        "name": name,
        "module": module,
        "distribution": folder.name,
        "label": _quotable(label or " ".join(words[-2:]).capitalize()),
        "category": _quotable(words[0].capitalize() if "/" in name else "Actions"),
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        f"{module}.py": "step.py",
        f"tests/test_{module}.py": "test_step.py",
    }
    for path, template in files.items():
        text = Template((_TEMPLATES / f"{template}.template").read_text(encoding="utf-8"))
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.substitute(parts), encoding="utf-8")
    if json:
        as_json({"folder": str(folder), "files": list(files)})
        return
    for path in files:
        say(str(folder / path))
    note(f"Try it: cd {folder} && python -m pytest. Install it where Permaflow is: pip install .")


def _quotable(text: str) -> str:
    """What can stand between double quotes."""
    if re.search(r'["\\\x00-\x1f]', text):
        raise CommandError("A label has no quotes, backslashes or line ends.", code="bad_label")
    return text
