"""What goes to runners: the dispatch of an attempt, made once and asked for as often as need be."""

from __future__ import annotations

from permaflow.plan import Node, OnUnknown, Task
from pipeline.core.effects import Ask, ClearTimer, Dispatch, Effect, SetTimer, StopStep
from pipeline.core.state import NodeState, Run

RETRY = OnUnknown.RETRY


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
        node.on_unknown is not RETRY,
    )


def without_dropped(run: Run, effects: list[Effect]) -> list[Effect]:
    """The effects that did not come to nothing meanwhile; what is no longer wanted is told so."""
    timers, steps, questions = run.dropped_timers, run.dropped_steps, run.dropped_questions
    if timers:
        disarmed = set(timers)
        effects = [e for e in effects if not (isinstance(e, SetTimer) and e.key in disarmed)]
        effects.extend(ClearTimer(key) for key in timers)
        timers.clear()
    if steps:
        stopped = set(steps)
        effects = [e for e in effects if not (isinstance(e, Dispatch) and e[:3] in stopped)]
        effects.extend(StopStep(*step) for step in steps)
        steps.clear()
    if questions:
        over = {question[:3] for question in questions}
        effects = [e for e in effects if not (isinstance(e, Ask) and e[:3] in over)]
        effects.extend(questions)
        questions.clear()
    return effects
