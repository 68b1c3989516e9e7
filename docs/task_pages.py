"""The page of task types, from the registry and the schemas of their configs and results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markdown import opening, row, table
from schemas import members

from pipeline import builtins
from pipeline.settings import Settings


def task_types_page() -> Iterator[str]:
    """Every task type that comes in the box, with its config and its result."""
    yield from opening("Task types", "stages/*.py")
    yield "What a runner can do. A config is checked when its document is saved, except where a"
    yield "`{{template}}` stands, and once more when the templates have their values. Members that"
    yield "are not listed are refused. A document that names an unknown type is refused with a list"
    yield "of those that the installation has."
    yield ""
    types = builtins.task_types(Settings(_env_file=None, task_types=""))  # type: ignore[call-arg]
    infos = [types.info(name) for name in builtins.TASK_TYPES]
    yield from table("Type", "Stage", "Timeout", "What it does")
    for info in infos:
        seconds = f"{info.timeout.total_seconds():g} s"
        yield row(f"[`{info.name}`](#{info.name})", f"`{info.stage}`", seconds, info.doc)
    for info in infos:
        yield ""
        yield f"## {info.name}"
        yield from part("Config", info.config)
        yield from part("Result", info.result)


def part(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"### {title}"
    yield ""
    yield from (schema.get("description") or "").splitlines()
    shapes = schema.get("$defs", {})
    if "properties" in schema:
        yield ""
        yield from members(schema)
        return
    for name, shape in shapes.items():
        yield ""
        yield f"**{name}**: {shape.get('description', '')}"
        yield ""
        yield from members(shape)
