"""What is surely over, told from a state that may be older than the store.

States only move forward: attempts and visits grow, and an iteration that has closed stays closed.
So what is over here is over everywhere, and nobody has to load the journal to be sure of it. False
means: not known here.
"""

from __future__ import annotations

from permaflow.plan import ROOT
from pipeline.core.events import AttemptDone, AttemptFailed, AttemptParked
from pipeline.core.state import ASKED, RUN_TIMER, RUNNING, NodeState, Run


def awaited(run: Run, event: AttemptDone | AttemptFailed | AttemptParked) -> NodeState | None:
    """The node that waits for this very attempt; None when its result comes late or early."""
    scope = run.scopes.get(event.scope)
    state = scope.nodes.get(event.node) if scope is not None else None
    if (
        state is not None
        and (state.phase is RUNNING or state.phase is ASKED)
        and state.attempt == event.attempt
    ):
        return state
    return None


def is_past(run: Run, scope_id: str, name: str, attempt: int) -> bool:
    """Whether this attempt has ended, or can no longer count."""
    if run.cause is not None:
        return _is_past_repair(run, scope_id, name, attempt)
    if name not in run.program.plan.nodes:
        return False  # what undoes a run begins after this
    scope = run.scopes.get(scope_id)
    if scope is None:
        return _has_closed(run, scope_id)
    state = scope.nodes.get(name)
    if state is None or state.attempt < attempt:
        return False
    return state.attempt > attempt or state.phase not in (RUNNING, ASKED)


def is_over(run: Run, key: str) -> bool:
    """Whether a timer that is not armed here can no longer be armed either."""
    kind, *rest = key.split("\x1f")
    match rest:
        case [] | [_] if kind == RUN_TIMER:
            number = int(rest[0]) if rest and rest[0].isdecimal() else 0
            return number < run.reopened or (number == run.reopened and run.cause is not None)
        case [scope_id, name, attempt] if attempt.isdecimal():
            return kind in ("retry", "delay", "timeout") and is_past(
                run, scope_id, name, int(attempt)
            )
    return False


def _is_past_repair(run: Run, scope_id: str, name: str, attempt: int) -> bool:
    """The same, once nothing counts any more but what undoes the run."""
    if name in run.program.plan.nodes:
        return True
    if run.repaired.get((scope_id, name), (0, 0))[0] >= attempt:
        return True
    if run.repair is None or (run.repair[0].id, run.repair[1]) != (scope_id, name):
        return False
    state = run.repair[0].nodes[name]
    return state.attempt > attempt or (state.attempt == attempt and state.phase is not RUNNING)


def _has_closed(run: Run, scope_id: str) -> bool:
    """Whether an iteration was open once, and is so no more. See `fold` for how it is named."""
    head, _, index = scope_id.removesuffix("]").rpartition("[")
    cut = head.rfind("].") + 1
    outer_id, name = head[:cut], head[cut + 1 :] if cut else head
    visit = "0"
    if name not in run.program.plan.nodes:
        name, _, visit = name.rpartition("@")
    if not (index.isdecimal() and visit.isdecimal()):
        return False
    outer = run.scopes.get(outer_id)
    if outer is None:
        return outer_id != ROOT and _has_closed(run, outer_id)
    state = outer.nodes.get(name)
    if state is None or state.visits != int(visit):
        return state is not None and state.visits > int(visit)
    loop = state.loop
    if loop is None:
        return state.outcome is not None
    # What broke a loop, or was open when it failed, goes on if the run is reopened.
    return int(index) < loop.next and not (int(index) in loop.open or int(index) in loop.broken)
