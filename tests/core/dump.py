"""The whole state of a run as plain values, to be compared and kept."""

from __future__ import annotations

from typing import Any

from pipeline.core.state import DUE, LOOPING, LoopState, NodeState, Run, Scope

_PRISTINE = NodeState()


def dump(run: Run) -> dict[str, Any]:
    """Everything that a run remembers. A node that nothing was said of is left out."""
    return {
        "status": run.status,
        "error": run.error,
        "trigger": run.trigger,
        "started": run.started,
        "cancelled": run.cancelled,
        "steps_used": run.steps_used,
        "outstanding": {f"{scope}/{node}": n for (scope, node), n in run.outstanding.items()},
        "timers": {key: [t.kind, t.scope, t.node] for key, t in run.timers.items()},
        "scopes": {scope.id: _scope(scope) for scope in run.scopes.values()},
        "undo": [[e.scope, e.node, e.step] for e in run.undo],
        "doubts": sorted(run.doubts),
        "cause": list(run.cause) if run.cause is not None else None,
        "repair": [run.repair[0].id, run.repair[1]] if run.repair is not None else None,
        "repaired": {f"{scope}/{node}": list(n) for (scope, node), n in run.repaired.items()},
        "unrepaired": run.unrepaired,
        "handled": [run.handled, run.handler_steps],
        "paused": run.paused,
        "halted": run.halted,
        "reopened": run.reopened,
        "unarmed": run.unarmed,
        "left_behind": [len(run.dropped_steps), len(run.dropped_timers), len(run.touched)],
    }


def _scope(scope: Scope) -> dict[str, Any]:
    return {
        "name": scope.name,
        "open": scope.open,
        "parent": scope.parent.id if scope.parent is not None else None,
        "place": [scope.loop, scope.index],
        "steps": scope.steps,
        "error": scope.context.get("error"),
        "nodes": {name: _node(s) for name, s in scope.nodes.items() if not _pristine(s)},
    }


def _node(state: NodeState) -> dict[str, Any]:
    return {
        "phase": state.phase if state.phase != DUE else None,
        "due": state.phase == DUE,
        "outcome": state.outcome.value if state.outcome is not None else None,
        "attempt": state.attempt,
        "retries": state.retries,
        "visits": state.visits,
        "port": state.port,
        "output": state.output,
        "config": state.config,
        "loop": _loop(state, state.loop)
        if state.loop is not None and state.outcome is None
        else None,
        "kept": _kept(state.loop) if state.loop is not None else None,
    }


def _kept(loop: LoopState) -> dict[str, Any]:
    """What a loop can go on from after its end."""
    return {
        "broken": {index: _scope(scope) for index, scope in loop.broken.items()},
        "open": {index: _scope(scope) for index, scope in loop.open.items()},
    }


def _loop(state: NodeState, loop: LoopState) -> dict[str, Any]:
    live = loop.open if state.phase == LOOPING else {}
    return {
        "items": loop.items,
        "next": loop.next,
        "done": loop.done,
        "failed": loop.failed,
        "open": {str(index): scope.id for index, scope in live.items()},
        "outputs": loop.outputs,
        "error": list(loop.error) if loop.error is not None else None,
    }


def _pristine(state: NodeState) -> bool:
    return all(getattr(state, name) == getattr(_PRISTINE, name) for name in NodeState.__slots__)
