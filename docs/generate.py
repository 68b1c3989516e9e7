"""Writes docs/reference, and the figures in the README, from the code: `make docs`.

`--check` only says which pages are stale.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from api_pages import cli_page, http_api_page
from figure_pages import figures_page, other_engines
from limit_pages import limits_page
from markdown import NOTICE, row, table
from prometheus_client.metrics import MetricWrapperBase
from protocol_pages import asyncapi_page, protocol_page, schema_page
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from state_pages import journal_page, states_page
from task_pages import task_types_page

from permaflow import errors
from pipeline import telemetry
from pipeline.schemas import NAMES, box_schema
from pipeline.settings import Settings

REFERENCE = Path(__file__).parent / "reference"
README = Path(__file__).parents[1] / "README.md"
FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)


def settings_page() -> Iterator[str]:
    """Every variable, in the order and under the headings of the class."""
    yield "# Settings"
    yield ""
    yield NOTICE.format(source="pipeline/settings.py")
    yield ""
    yield from (inspect.getdoc(inspect.getmodule(Settings)) or "").splitlines()
    prefix = str(Settings.model_config["env_prefix"])
    for title, names in sections(Settings):
        yield ""
        yield f"## {title}"
        yield ""
        yield from table("Variable", "Type", "Default", "What it does")
        for name in names:
            field = Settings.model_fields[name]
            variable = f"`{prefix}{name.upper()}`"
            yield row(variable, kind(field), default(field), field.description or "")


def sections(model: type[Any]) -> list[tuple[str, list[str]]]:
    """The fields of a model under the comments that divide its source."""
    found: list[tuple[str, list[str]]] = [("General", [])]
    for line in inspect.getsource(model).splitlines():
        if heading := re.fullmatch(r" {4}# (.+)", line):
            found.append((heading[1], []))
        elif (field := re.match(r" {4}(\w+):", line)) and field[1] in model.model_fields:
            found[-1][1].append(field[1])
    return [(title, names) for title, names in found if names]


def kind(field: FieldInfo) -> str:
    """The type in a user's words, with its bounds."""
    annotation: Any = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(f"`{each}`" for each in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        SecretStr: "secret",
    }
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(limit, attribute)}"
        for limit in field.metadata
        for attribute, sign in signs.items()
        if hasattr(limit, attribute)
    ]
    return ", ".join([words.get(annotation, f"`{annotation}`"), *bounds])


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value}`" if value not in ("", None) else "empty"


def errors_page() -> Iterator[str]:
    """Every class of permaflow/errors.py, parents first."""
    yield "# Errors"
    yield ""
    yield NOTICE.format(source="permaflow/errors.py")
    yield ""
    yield "What Permaflow raises on purpose. `code` stands in answers, logs and journals and does"
    yield "not change; a retryable error may pass by itself."
    yield ""
    yield "```text"
    yield from (inspect.getdoc(errors) or "").partition("::\n\n")[2].splitlines()
    yield "```"
    yield ""
    yield from table("Code", "Class", "Retryable", "What it says")
    for error in family(errors.PermaflowError):
        says = (inspect.getdoc(error) or "").splitlines()[0]
        yield row(
            f"`{error.code}`", f"`{error.__name__}`", "yes" if error.retryable else "no", says
        )


def family(error: type[errors.PermaflowError]) -> Iterator[type[errors.PermaflowError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


def telemetry_page() -> Iterator[str]:
    """Every log event and metric of the catalogue, in its order."""
    yield "# Telemetry"
    yield ""
    yield NOTICE.format(source="pipeline/telemetry.py")
    yield ""
    yield "## Log events"
    yield ""
    yield "A line is one JSON object: `event`, `level`, `timestamp` and the fields named here."
    yield ""
    yield from table("Event", "Level", "Fields", "What happened")
    for event in telemetry.EVENTS.values():
        fields = ", ".join(f"`{name}`" for name in event.fields)
        yield row(f"`{event.name}`", event.level, fields, event.doc)
    yield ""
    yield "## Metrics"
    yield ""
    yield "Served by every vertex at `/metrics` on its ops port. No label holds an id."
    yield ""
    yield from table("Metric", "Kind", "Labels", "What it counts")
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase):
            (described,) = metric.describe()
            name = described.name + "_total" * (described.type == "counter")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            yield row(f"`{name}`", described.type, labels, described.documentation)


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "settings.md": settings_page,
    "telemetry.md": telemetry_page,
    "errors.md": errors_page,
    "task-types.md": task_types_page,
    "http-api.md": http_api_page,
    "cli.md": cli_page,
    "states.md": states_page,
    "journal.md": journal_page,
    "limits.md": limits_page,
    "figures.md": figures_page,
    "step-protocol.md": protocol_page,
    "step-protocol.asyncapi.json": asyncapi_page,
    "step-protocol.schema.json": schema_page,
}


def schema_files() -> Iterator[tuple[str, str]]:
    """The JSON Schemas of the dialects, with what comes in the box."""
    for name in NAMES:
        text = json.dumps(box_schema(name), indent=2, ensure_ascii=False)
        yield f"schemas/{name}.json", f"{text}\n"


def readme() -> str:
    """The README with the figures of the reference measurement."""
    lines = "\n".join(other_engines())
    return FIGURES.sub(lambda _: f"{lines}\n", README.read_text(encoding="utf-8"))


def files() -> Iterator[tuple[Path, str]]:
    """Everything that is written from the code, with its text."""
    for name, page in PAGES.items():
        yield REFERENCE / name, "\n".join(page()).rstrip() + "\n"
    for name, text in schema_files():
        yield REFERENCE / name, text
    yield README, readme()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    check = parser.parse_args().check
    stale = 0
    for path, text in files():
        name = path.relative_to(README.parent)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"{name} is stale: run `make docs`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
