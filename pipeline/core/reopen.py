"""What is open again when a run that had ended goes on.

A scope keeps what has ended in it. Open again is what it did not survive, what was skipped because
of that, and what was dropped at its end; loops go on with the iterations that were not done.
"""

from __future__ import annotations

from permaflow.plan import FAILURES, Continue, Outcome
from pipeline.core.state import DUE, LOOPING, NodeState, Run, Scope, Timer, timer_key


def open_again(run: Run) -> None:
    """Let a run that has ended go on.

    A failure that the plan has dealt with stays as it is, unless nothing else made the run fail.
    """
    root = run.root
    last = run.error["node"] if run.error is not None else ""
    fatal = _fatal(run, root, last)
    if not fatal and root.open == 0:
        fatal = [name for name, state in root.nodes.items() if state.outcome in FAILURES]
    _open_scope_again(run, root, fatal)


def _fatal(run: Run, scope: Scope, name: str) -> list[str]:
    """The node that the scope did not survive, if it is this one that failed last."""
    state = scope.nodes.get(name)
    if state is None or state.outcome not in FAILURES:
        return []
    return [] if isinstance(run.plan_node(name).on_error, Continue) else [name]


def _open_scope_again(run: Run, scope: Scope, fatal: list[str]) -> None:
    nodes = scope.nodes
    for name in fatal:
        _unend(scope, name, nodes[name])
        nodes[name].phase = DUE
        for follower in run.program.descendants(name)[1:]:
            state = nodes.get(follower)
            if state is not None and state.outcome is Outcome.SKIPPED:
                _unend(scope, follower, state)
    if fatal:
        _see_last_error(scope)
    for name, state in nodes.items():
        if state.phase is DUE:
            state.retries = 0
            if state.loop is not None:
                _open_loop_again(run, scope, name, state)


def _unend(scope: Scope, name: str, state: NodeState) -> None:
    scope.open += 1
    state.outcome = state.port = state.output = None
    scope.steps.pop(name, None)


def _see_last_error(scope: Scope) -> None:
    """What expressions see as `error`: the last failure that still is one."""
    last = next((s["error"] for s in reversed(scope.steps.values()) if "error" in s), None)
    if last is None and scope.parent is not None:
        last = scope.parent.context.get("error")
    if last is None:
        scope.context.pop("error", None)
    else:
        scope.context["error"] = last


def _open_loop_again(run: Run, scope: Scope, name: str, state: NodeState) -> None:
    """Iterations that are done stay so; those that failed or were open go on."""
    loop = state.loop
    assert loop is not None
    state.phase = LOOPING
    state.attempt += 1
    loop.error = None
    loop.done -= len(loop.broken)
    loop.failed -= len(loop.broken)
    broken = dict(loop.broken)
    loop.broken.clear()
    loop.open |= broken
    for index, inner in loop.open.items():
        run.scopes[inner.id] = inner
        fatal = _fatal(run, inner, inner.context["error"]["node"]) if index in broken else []
        _open_scope_again(run, inner, fatal)
    if run.program.plan.nodes[name].timeout is not None:
        key = timer_key("timeout", scope.id, name, state.attempt)
        run.timers[key] = Timer("timeout", scope.id, name)
        run.unarmed.append(key)
