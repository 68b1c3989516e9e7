"""What steps may be called, in every dialect."""

from __future__ import annotations

from typing import Any

import pytest

from permaflow.plan import Json
from pipeline.builtins import task_types
from pipeline.settings import Settings
from specs.dialects import compile_document

TYPES = task_types(Settings())


def graph(name: str) -> dict[str, Any]:
    nodes: list[Json] = [
        {"id": "t", "type": "trigger_manual", "config": {}},
        {"id": name, "type": "code_function", "config": {"function_slug": "f"}},
    ]
    return {"nodes": nodes, "edges": [{"id": "e", "source": "t", "target": name}]}


def dag(name: str) -> dict[str, Any]:
    block = {"name": name, "type": "FUNCTION", "arguments": [{"function_slug": "f"}]}
    return {"dag": {"entrypoint": name, "exitpoints": [name], "tasks": [block]}}


def steps(name: str) -> dict[str, Any]:
    step = {"id": name, "action": "Note.create", "mapping": {"text": "Call"}}
    return {"triggerEvent": "Deal.won", "steps": [step]}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [(graph, "/nodes/1/id"), (dag, "/dag/tasks/0/name"), (steps, "/steps/0/id")],
)
def test_a_name_is_none_that_the_engine_gives_to_later_visits(document: Any, pointer: str) -> None:
    """`x@1` is the second visit of a loop `x`; a loop of that name would be mistaken for it."""
    for name in ("x@1", "x@12", "x@y@0", "x@١"):
        found = {
            (each.pointer, each.code) for each in compile_document(document(name), TYPES).problems
        }
        assert (pointer, "bad_id") in found, name
    for name in ("x@", "x@y", "x@1y", "1", "x1"):
        assert compile_document(document(name), TYPES).problems == (), name
