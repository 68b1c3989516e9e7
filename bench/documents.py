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


def long_body() -> Json:
    """A loop over the trigger's `items` with three nodes for each: a step, a condition that is
    always true, and a step that looks at what became of the first.
    """
    test = {"expression": "loop.item >= 0"}
    body = [
        call("first", "noop", "{{loop.item}}"),
        {"id": "test", "type": "logic_condition", "config": test},
        call("second", "noop", "{{steps.first.outcome}}"),
    ]
    nodes = [
        {"id": "t", "type": "trigger_manual", "config": {}},
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}},
        *({**node, "parentId": "each"} for node in body),
        call("after", "noop", "{{steps.each.output.count}}"),
    ]
    edges = [("t", "each"), ("first", "test"), ("test:true", "second"), ("each", "after")]
    return graph(nodes, edges)


def wide(steps: int) -> Json:
    """A trigger, so many calls of a function side by side, and one after their join."""
    names = [f"n{number}" for number in range(steps)]
    nodes = [
        {"id": "t", "type": "trigger_manual", "config": {}},
        *(call(name, "noop") for name in names),
        {"id": "join", "type": "logic_join", "config": {"join": "all"}},
        call("after", "noop"),
    ]
    edges = [*(("t", name) for name in names), *((name, "join") for name in names)]
    return graph(nodes, [*edges, ("join", "after")])


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
    """`name:port` as the source of an edge is that port of the node."""
    written = []
    for number, (source, target) in enumerate(edges):
        name, _, port = source.partition(":")
        edge = {"id": f"e{number}", "source": name, "target": target}
        written.append(edge | ({"sourceHandle": port} if port else {}))
    return {"version": 1, "nodes": list(nodes), "edges": written}
