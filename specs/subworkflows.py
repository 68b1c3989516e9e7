"""The config of `meta_subworkflow`: which workflow, with what, and what becomes of its run.

* `workflow_id`, or `workflow` (a name), of the same organisation; `version`, a number or `latest`,
  the default. Each may be a template.
* `input`: what `{{trigger}}` is in the child. `mode`: `sync` waits for its end, `async` does not.
* `output`: what the step gives back, with templates over `run` (`id`, `status`, `output` of the
  child); without it, the output of the child.
* `on_child_failure`: `fail` (the default), or `continue`: then the output of the step is
  `{"run_id", "status", "output", "error"}`, however the child ended.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from permaflow.plan import Json, Question
from specs.paths import Path
from specs.reading import Fields, Report, shown
from specs.templates import Look, read_config, render

KIND = "child"
MAX_DEPTH = 10
MAX_CHILDREN = 100_000
MAX_VERSION = 1_000_000_000
LATEST = "latest"

_NOTES = frozenset({"label", "description"})
_FIELDS = frozenset(
    {"workflow_id", "workflow", "version", "input", "mode", "output", "on_child_failure"}
)
_ID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", re.ASCII)


def read_subworkflow(fields: Fields, look: Look) -> Question:
    """A question to a run that is started for it."""
    fields.only(_FIELDS, _NOTES)
    named = [name for name in ("workflow_id", "workflow") if fields.has(name)]
    if not named:
        fields.missing("workflow_id", "the id of a workflow, or its name as `workflow`")
    elif len(named) > 1:
        fields.problem("workflow", "conflict", "Give either `workflow_id` or `workflow`.")
    config: dict[str, Json] = {
        name: _text(fields, name, look) if fields.has(name) else None
        for name in ("workflow_id", "workflow")
    }
    given = fields.values.get("input")
    config |= {
        "version": _version(fields, look),
        "input": read_config(given, fields.at("input"), fields.report, look),
        "mode": fields.choice("mode", ("sync", "async"), "sync"),
        "on_child_failure": fields.choice("on_child_failure", ("fail", "continue"), "fail"),
        "max_depth": MAX_DEPTH,
        "max_children": MAX_CHILDREN,
    }
    if "output" in fields.values:
        config["output"] = _output(fields)
    if config["mode"] == "async":
        for name in ("output", "on_child_failure"):
            if fields.has(name):
                message = f"`{name}` is about the end of the child, for which `async` does not wait"
                fields.problem(name, "conflict", f"{message}; remove one of the two.")
    return Question(KIND, config)


def _text(fields: Fields, name: str, look: Look) -> Json:
    value = fields.text(name, required=True)
    if value is None:
        return ""
    compiled = read_config(value, fields.at(name), fields.report, look)
    if name == "workflow_id" and type(compiled) is str and not _ID.fullmatch(compiled):
        message = f"{shown(value)} is no id of a workflow; to name one, write `workflow`."
        fields.problem(name, "bad_value", message)
    return compiled


def _version(fields: Fields, look: Look) -> Json:
    value = fields.values.get("version")
    if value is None or value == LATEST:
        return None
    if type(value) is str and "{{" in value:
        return read_config(value, fields.at("version"), fields.report, look)
    if type(value) is str:
        fields.problem("version", "bad_value", "`version` is a number from 1, or `latest`.")
        return None
    return fields.whole("version", 1, MAX_VERSION, 1)


def _output(fields: Fields) -> Json:
    """The mapping as it is written: it is rendered once the child has ended."""
    value, pointer = fields.values["output"], fields.at("output")

    def look(path: Path, where: str) -> None:
        if path.segments[0] != "run":
            message = (
                f"`{path.text}` is not known here; `output` looks at the child: `run.output`, "
                "`run.status` and `run.id`."
            )
            fields.report.add(where, "bad_template", message)

    read_config(value, pointer, fields.report, look)
    return value


@lru_cache(maxsize=1_000)
def _compiled(mapping: bytes) -> Json:
    return read_config(msgspec.json.decode(mapping), "", Report())


def map_output(mapping: bytes, child: dict[str, Any]) -> Json:
    """What the mapping (JSON text) makes of a child: `{"id", "status", "output"}`.

    Raises `EvaluationError`.
    """
    return render(_compiled(mapping), {"run": child})
