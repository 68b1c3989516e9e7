"""Builders of graph documents, and what comes of them."""

from __future__ import annotations

from typing import Any

from permaflow.plan import Json, Node, Problem, TaskTypes
from specs.dialects import compile_document

START: dict[str, Any] = {"id": "start", "type": "trigger_manual"}


def call(name: str, **more: Json) -> dict[str, Any]:
    return {"id": name, "type": "action_http", "config": {"url": "https://x"}, **more}


def passing(name: str, **more: Json) -> dict[str, Any]:
    return {"id": name, "type": "logic_parallel", **more}


def check(name: str, **more: Json) -> dict[str, Any]:
    condition = {"field": "trigger.record.a", "op": "gt", "value": 1}
    return {"id": name, "type": "logic_condition", "config": {"condition": condition}, **more}


def graph(nodes: list[Json], *arrows: str, **more: Json) -> dict[str, Any]:
    """Arrows are written `source -> target`, or `source:handle -> target`."""
    edges = []
    for number, arrow in enumerate(arrows):
        source, target = arrow.split(" -> ")
        source, _, handle = source.partition(":")
        edge: dict[str, Json] = {"id": f"e{number}", "source": source, "target": target}
        edges.append({**edge, "sourceHandle": handle} if handle else edge)
    return {"nodes": nodes, "edges": edges, **more}


def nodes_of(document: Json, types: TaskTypes) -> dict[str, Node]:
    compiled = compile_document(document, types)
    assert compiled.problems == ()
    assert compiled.plan is not None
    return dict(compiled.plan.nodes)


def only_problem(document: Json, types: TaskTypes) -> Problem:
    compiled = compile_document(document, types)
    assert compiled.plan is None
    [problem] = compiled.problems
    return problem


def loop(name: str = "l", **config: Json) -> dict[str, Any]:
    return {"id": name, "type": "logic_loop", "config": {"items": "{{trigger.rows}}", **config}}
