"""The workflows that are measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from permaflow.plan import Json

Node = dict[str, Any]


def chain(
    steps: int, trigger: Node | None = None, *, slug: str = "noop", given: Json = None
) -> Json:
    """A trigger, then so many calls of a function, one after the other."""
    first = trigger or {"id": "t", "type": "trigger_manual", "config": {}}
    nodes = [first, *(call(f"n{number}", slug, given) for number in range(steps))]
    return graph(nodes, [(one["id"], two["id"]) for one, two in pairwise(nodes)])


def loop() -> Json:
    """A loop over the trigger's `items` with one step for each, and one step after the join."""
    nodes = [
        {"id": "t", "type": "trigger_manual", "config": {}},
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}},
        {**call("body", "noop", "{{loop.item}}"), "parentId": "each"},
        call("after", "noop", "{{steps.each.output.count}}"),
    ]
    return graph(nodes, [("t", "each"), ("each", "after")])


def wait(seconds: float) -> Json:
    """A delay, then a step."""
    nodes = [
        {"id": "t", "type": "trigger_manual", "config": {}},
        {"id": "pause", "type": "logic_delay", "config": {"duration": seconds}},
        call("after", "noop"),
    ]
    return graph(nodes, [("t", "pause"), ("pause", "after")])


def call(name: str, slug: str, given: Json = None) -> Node:
    config: dict[str, Json] = {"function_slug": slug}
    if given is not None:
        config["input"] = given
    return {"id": name, "type": "code_function", "config": config}


def graph(nodes: Sequence[Node], edges: Sequence[tuple[str, str]]) -> Json:
    written = [
        {"id": f"e{number}", "source": source, "target": target}
        for number, (source, target) in enumerate(edges)
    ]
    return {"version": 1, "nodes": list(nodes), "edges": written}
