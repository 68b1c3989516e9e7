"""What goes to runners: the dispatch of an attempt, made once and asked for as often as need be."""

from __future__ import annotations

from permaflow.plan import Node, Task
from pipeline.core.effects import Dispatch
from pipeline.core.state import NodeState, Run


def outstanding(run: Run) -> list[Dispatch]:
    """Every dispatch that is with a runner, asked for again: same attempts, same configs."""
    found: list[Dispatch] = []
    for (scope_id, name), attempt in run.outstanding.items():
        state = run.scopes[scope_id].nodes[name]
        found.append(dispatch_of(scope_id, run.plan_node(name), state, attempt))
    return found


def dispatch_of(scope_id: str, node: Node, state: NodeState, attempt: int) -> Dispatch:
    assert isinstance(node.work, Task)
    timeout = node.timeout.total_seconds() if node.timeout is not None else None
    return Dispatch(
        scope_id,
        node.id,
        attempt,
        node.work.stage,
        node.type,
        state.config,
        timeout,
        state.visits,
    )
