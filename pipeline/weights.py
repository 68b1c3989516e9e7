"""How much the state of a run holds: about its bytes as JSON. Memory takes several times that."""

from __future__ import annotations

from typing import Any

from pipeline.core.state import Run

_NODE = 100
_SCOPE = 300
_SCALAR = 8


def weigh(run: Run) -> int:
    """What the state holds now; a value that several places share counts once."""
    total = 0
    values: list[Any] = [run.input, run.handler_steps, [done.step for done in run.undo]]
    for scope in (run.root, *run.scopes.values()):
        total += _SCOPE + _NODE * len(scope.nodes)
        values.append(scope.steps)
        for state in scope.nodes.values():
            values += (state.output, state.config)
            if state.loop is not None:
                values += (state.loop.items, state.loop.outputs)
    return total + _size(values)


def _size(values: list[Any]) -> int:
    total = 0
    seen: set[int] = set()
    while values:
        value = values.pop()
        kind = type(value)
        if kind is str:
            total += len(value) + 2
        elif kind is dict or kind is list:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if kind is dict:
                total += sum(map(len, value)) + 4 * len(value)
                values.extend(value.values())
            else:
                values.extend(value)
        else:
            total += _SCALAR
    return total
