"""A plan with the tables that the hot path wants, made once for each version of a workflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from permaflow.plan import (
    CONTINUE,
    ROOT,
    Json,
    Never,
    Node,
    Plan,
    Question,
    Task,
    Trigger,
    mentions,
)

Renderer = Callable[[Any], Json]
NEVER = Never()


COMPENSATE = "#compensate"


def compensation_of(name: str) -> str:
    """The node that undoes a node. No dialect lets a `#` into the names of nodes."""
    return name + COMPENSATE


def _undoing(node: Node) -> Node:
    what = node.compensation
    assert what is not None
    return Node(
        compensation_of(node.id),
        what.type,
        what.work,
        NEVER,
        retry=what.retry,
        timeout=what.timeout,
        on_error=CONTINUE,
    )


class Program:
    """Tables over a plan; see each attribute. Shared by all runs of a version, never changed."""

    __slots__ = (
        "_descendants",
        "compensates",
        "doubtful",
        "entries",
        "followers",
        "handlers",
        "nodes",
        "plan",
        "renderers",
        "triggers",
    )

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        undoing = {name: _undoing(node) for name, node in plan.nodes.items() if node.compensation}
        self.nodes: dict[str, Node] = {
            **plan.nodes,
            **{node.id: node for node in undoing.values()},
            **{node.id: replace(node, on_error=CONTINUE, when=NEVER) for node in plan.on_failure},
        }
        """The nodes of the plan, and those that run when a run does not complete."""
        self.followers = {**dict.fromkeys(self.nodes, ()), **plan.followers}
        self.handlers = frozenset(node.id for node in plan.on_failure)
        """The nodes of `on_failure`."""
        self.doubtful = frozenset(
            name
            for name in undoing
            if (what := plan.nodes[name].compensation) is not None
            and what.when_unknown
            and isinstance(plan.nodes[name].work, Task)
        )
        """Tasks that are undone, too, when nobody knows what an attempt of theirs did."""
        self.compensates = bool(undoing or plan.on_failure)
        self.entries: dict[str, tuple[str, ...]] = {
            scope: tuple(name for name in names if not mentions(plan.nodes[name].when))
            for scope, names in plan.members.items()
        }
        """Scope → the nodes that wait for no other."""
        self.triggers = tuple(
            name for name in plan.members[ROOT] if isinstance(plan.nodes[name].work, Trigger)
        )
        self.renderers: dict[str, Renderer] = {
            node.id: renderer(node.work.config)
            for node in self.nodes.values()
            if isinstance(node.work, Task | Question)
        }
        """Task or question → context → its config without expressions."""
        self._descendants: dict[str, tuple[str, ...]] = {}

    def outputs_of(self, scope: str) -> tuple[str, ...]:
        """The nodes whose outputs are the output of a scope."""
        if scope == ROOT and self.plan.exits:
            return self.plan.exits
        return self.plan.leaves.get(scope, ())

    def descendants(self, name: str) -> tuple[str, ...]:
        """A node and all that follows from it, itself first."""
        found = self._descendants.get(name)
        if found is None:
            seen: dict[str, None] = {name: None}
            stack = [name]
            while stack:
                for follower in self.plan.followers[stack.pop()]:
                    if follower not in seen:
                        seen[follower] = None
                        stack.append(follower)
            found = self._descendants[name] = tuple(seen)
        return found


def renderer(value: Json) -> Renderer:
    """A function that gives `value` with its expressions evaluated; constant parts are shared."""
    if hasattr(value, "evaluate"):
        evaluate: Renderer = value.evaluate
        return evaluate
    if isinstance(value, dict):
        moving = [(key, renderer(item)) for key, item in value.items() if not _constant(item)]
        if moving:
            return lambda context: {**value, **{key: part(context) for key, part in moving}}
    elif isinstance(value, list | tuple) and not _constant(value):
        parts = [renderer(item) for item in value]
        return lambda context: [part(context) for part in parts]
    return lambda _context: value


def _constant(value: Json) -> bool:
    if isinstance(value, dict):
        return all(_constant(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_constant(item) for item in value)
    return not hasattr(value, "evaluate")
