"""A plan with the tables that the hot path wants, made once for each version of a workflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from permaflow.plan import (
    ROOT,
    Json,
    Plan,
    Question,
    Task,
    Trigger,
    mentions,
)

Renderer = Callable[[Any], Json]


class Program:
    """Tables over a plan; see each attribute. Shared by all runs of a version, never changed."""

    __slots__ = ("_descendants", "entries", "plan", "renderers", "triggers")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
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
            for node in plan.nodes.values()
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
