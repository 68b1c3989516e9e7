"""`fold`: what each entry of a journal does to the state of a run.

Rules of this file:

* Folding never decides: no `when` is evaluated here, no expression, no policy.
* Folding is total for entries that `decide` wrote, in the order it wrote them.
* The live state is the same fold: `decide` applies each entry here as it writes it. Therefore
  fold(journal) equals the live state, always.
* Consequences that follow from the plan alone (a scope closes with its last node, a jump opens
  all that follows) happen here, so that no entry has to repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from permaflow.plan import FAILURES, Continue, Goto, Json, Loop, Outcome, Trigger
from pipeline.core.compensating import (
    begin,
    close,
    error_of,
    forget,
    keep,
    keep_doubtful,
)
from pipeline.core.effects import Withdraw
from pipeline.core.entries import (
    Asked,
    Cancelled,
    CancelRequested,
    Compensating,
    Continued,
    Dispatched,
    Doubted,
    Entry,
    Failed,
    Finished,
    Iterated,
    IterationFailed,
    Jumped,
    Kept,
    Logged,
    LoopOpened,
    Migrated,
    Parked,
    Paused,
    Reopened,
    Resumed,
    Retrying,
    Skipped,
    Started,
    Succeeded,
    Waiting,
)
from pipeline.core.reopen import open_again
from pipeline.core.state import (
    ASKED,
    DELAYED,
    DUE,
    LOOPING,
    RETRYING,
    RUNNING,
    LoopState,
    NodeState,
    Overlay,
    Run,
    Scope,
    Timer,
    run_timer,
    scope_output,
    timer_key,
)
from pipeline.core.unknown import is_unknown, question_of


def fold(run: Run, entries: Iterable[Entry]) -> Run:
    """The run after these entries: the given one, changed."""
    for entry in entries:
        FOLDS[type(entry)](run, entry)
    return run


# --- the entries --------------------------------------------------------------------------------


def _started(run: Run, entry: Started) -> None:
    run.started = True
    run.trigger = entry.trigger
    if run.program.plan.timeout is not None:
        run.timers[run_timer(run)] = Timer("run")


def _dispatched(run: Run, entry: Dispatched) -> None:
    state = run.scopes[entry.scope].node(entry.node)
    if state.phase is RETRYING:
        _disarm(run, timer_key("retry", entry.scope, entry.node, state.attempt))
    state.phase = RUNNING
    state.attempt = entry.attempt
    run.outstanding[entry.scope, entry.node] = entry.attempt
    if run.cause is None:
        run.steps_used += 1


def _succeeded(run: Run, entry: Succeeded) -> None:
    scope = run.scopes[entry.scope]
    state = scope.node(entry.node)
    output = entry.output
    node = run.program.nodes[entry.node]
    if state.phase is None:
        run.steps_used += 1
    if state.loop is not None:
        loop = state.loop
        output = {"items": loop.outputs, "count": len(loop.items), "failed": loop.failed}
    elif isinstance(node.work, Trigger):
        output = run.input
    state.output = output
    state.port = entry.port
    step = scope.steps[entry.node] = {"output": output, "outcome": "SUCCESS", "port": entry.port}
    if node.compensation is not None:
        run.doubts.discard((scope.id, entry.node))
        keep(run, scope, entry.node, step)
    _answered(run, entry.scope, entry.node, state)
    _end(run, scope, entry.node, state, Outcome.SUCCESS)


def _failed(run: Run, entry: Failed) -> None:
    scope = run.scopes[entry.scope]
    state = scope.node(entry.node)
    if state.phase is None and run.cause is None:
        run.steps_used += 1
    outcome = Outcome.TIMED_OUT if entry.timed_out else Outcome.FAILED
    _broke(scope, entry.node, outcome, entry.code, entry.message, entry.attempt, entry.details)
    _answered(run, entry.scope, entry.node, state)
    node = run.program.nodes[entry.node]
    if entry.node in run.program.doubtful:
        doubtful = (scope.id, entry.node) in run.doubts
        run.doubts.discard((scope.id, entry.node))
        if doubtful or is_unknown(entry):
            keep_doubtful(run, scope, entry.node)
    closes = isinstance(node.on_error, Continue)
    _end(run, scope, entry.node, state, outcome, closes=closes)


def _broke(
    scope: Scope,
    node: str,
    outcome: Outcome,
    code: str,
    message: str,
    attempt: int,
    details: Json,
) -> None:
    error = {
        "node": node,
        "code": code,
        "message": message,
        "attempt": attempt,
        "details": details,
    }
    scope.context["error"] = error
    scope.steps[node] = {"output": None, "outcome": outcome.value, "error": error}


def _answered(run: Run, scope: str, node: str, state: NodeState) -> None:
    if state.phase is RUNNING:
        del run.outstanding[scope, node]
        state.phase = state.config = None
    elif state.phase is ASKED:
        _withdraw(run, scope, node, state, answered=True)
        state.phase = None


def _retrying(run: Run, entry: Retrying) -> None:
    state = run.scopes[entry.scope].node(entry.node)
    state.retries += 1
    if entry.node in run.program.doubtful and is_unknown(entry):
        run.doubts.add((entry.scope, entry.node))
    _put_off(run, entry.scope, entry.node, state)


def _parked(run: Run, entry: Parked) -> None:
    _put_off(run, entry.scope, entry.node, run.scopes[entry.scope].node(entry.node))


def _put_off(run: Run, scope: str, node: str, state: NodeState) -> None:
    if state.phase is ASKED:
        _withdraw(run, scope, node, state, answered=True)
    run.outstanding.pop((scope, node), None)
    state.phase, state.config = RETRYING, None
    run.timers[timer_key("retry", scope, node, state.attempt)] = Timer("retry", scope, node)


def _doubted(run: Run, entry: Doubted) -> None:
    state = run.scopes[entry.scope].node(entry.node)
    run.outstanding.pop((entry.scope, entry.node), None)
    state.phase, state.config = ASKED, None
    run.questions[entry.scope, entry.node] = entry.attempt
    if entry.node in run.program.doubtful:
        run.doubts.add((entry.scope, entry.node))


def _waiting(run: Run, entry: Waiting) -> None:
    state = run.scopes[entry.scope].node(entry.node)
    state.phase = DELAYED
    state.attempt += 1
    run.steps_used += 1
    key = timer_key("delay", entry.scope, entry.node, state.attempt)
    run.timers[key] = Timer("delay", entry.scope, entry.node)
    _limit(run, entry.scope, entry.node, state)


def _asked(run: Run, entry: Asked) -> None:
    state = run.scopes[entry.scope].node(entry.node)
    if state.phase is RETRYING:
        _disarm(run, timer_key("retry", entry.scope, entry.node, state.attempt))
    state.phase = ASKED
    state.attempt = entry.attempt
    run.questions[entry.scope, entry.node] = entry.attempt
    run.steps_used += 1
    _limit(run, entry.scope, entry.node, state)


def _skipped(run: Run, entry: Skipped) -> None:
    scope = run.scopes[entry.scope]
    _end(run, scope, entry.node, scope.node(entry.node), Outcome.SKIPPED)


def _cancelled(run: Run, entry: Cancelled) -> None:
    scope = run.scopes[entry.scope]
    _end(run, scope, entry.node, scope.node(entry.node), Outcome.CANCELLED)


def _loop_opened(run: Run, entry: LoopOpened) -> None:
    state = run.scopes[entry.scope].node(entry.node)
    state.phase = LOOPING
    state.attempt += 1
    state.loop = LoopState(entry.items)
    run.steps_used += 1
    _limit(run, entry.scope, entry.node, state)


def _limit(run: Run, scope: str, node: str, state: NodeState) -> None:
    """What no runner does has its timeout here."""
    if run.program.nodes[node].timeout is not None:
        run.timers[timer_key("timeout", scope, node, state.attempt)] = Timer("timeout", scope, node)


def _iterated(run: Run, entry: Iterated) -> None:
    outer = run.scopes[entry.scope]
    state = outer.nodes[entry.node]
    loop = state.loop
    assert loop is not None
    size = len(run.program.plan.members[entry.node])
    prefix = f"{entry.scope}." if entry.scope else ""
    visit = f"@{state.visits}" if state.visits else ""
    for index in range(entry.first, entry.first + entry.size):
        context: dict[str, Any] = {
            "trigger": run.input,
            "run": outer.context["run"],
            "loop": {"item": loop.items[index], "index": index},
        }
        scope = Scope(f"{prefix}{entry.node}{visit}[{index}]", entry.node, size, context)
        context["steps"] = Overlay(scope.steps, outer.context["steps"])
        if "error" in outer.context:
            context["error"] = outer.context["error"]
        scope.parent, scope.loop, scope.index = outer, entry.node, index
        loop.open[index] = run.scopes[scope.id] = scope
    loop.next = entry.first + entry.size


def _iteration_failed(run: Run, entry: IterationFailed) -> None:
    scope = run.scopes[entry.scope]
    _drop_nodes(run, scope)
    _close_iteration(run, scope, None, (entry.code, entry.message))


def _jumped(run: Run, entry: Jumped) -> None:
    scope = run.scopes[entry.scope]
    scope.node(entry.target)
    for name in run.program.descendants(entry.target):
        state = scope.nodes.get(name)
        if state is None:
            continue
        if state.outcome is not None:
            scope.open += 1
        _drop_node(run, scope, name, state)
        state.outcome = state.port = state.output = state.loop = None
        state.retries = 0
        state.visits += 1
        scope.steps.pop(name, None)
    if run.paused:
        scope.nodes[entry.target].phase = DUE


def _cancel_requested(run: Run, entry: CancelRequested) -> None:
    run.cancelled = True


def _compensating(run: Run, entry: Compensating) -> None:
    _drop_everything(run)
    run.paused = run.halted = False
    begin(run, entry)


def _finished(run: Run, entry: Finished) -> None:
    _drop_everything(run)
    run.touched.clear()
    run.finished = True
    run.paused = run.halted = False
    run.status = entry.status
    if entry.code:
        error = {"code": entry.code, "message": entry.message, "node": entry.node}
        run.error = error | error_of(run)


def _drop_everything(run: Run) -> None:
    for scope in (run.root, *run.scopes.values()):
        _drop_nodes(run, scope)
    for key in list(run.timers):
        _disarm(run, key)


# --- runs that are held, and go on ----------------------------------------------------------------


def _paused(run: Run, entry: Paused) -> None:
    run.paused = True


def _resumed(run: Run, entry: Resumed) -> None:
    run.paused = False
    run.halted = True


def _migrated(run: Run, entry: Migrated) -> None:
    run.halted = True
    key = run_timer(run)
    if entry.timed and key in run.timers and key not in run.unarmed:
        run.unarmed.append(key)


def _reopened(run: Run, entry: Reopened) -> None:
    run.finished = run.cancelled = False
    run.halted = True
    run.reopened += 1
    forget(run)
    if run.started and run.program.plan.timeout is not None:
        key = run_timer(run)
        run.timers[key] = Timer("run")
        run.unarmed.append(key)
    open_again(run)
    run.status, run.error = "running", None


def _continued(run: Run, entry: Continued) -> None:
    run.halted = False
    run.unarmed.clear()
    for scope in run.scopes.values():
        for state in scope.nodes.values():
            if state.phase is DUE:
                state.phase = None


def _kept(run: Run, entry: Kept) -> None:
    scope = run.scopes[entry.scope]
    state = scope.node(entry.node)
    outcome = Outcome(entry.outcome)
    if outcome is Outcome.SUCCESS:
        state.output, state.port = entry.output, entry.port
        scope.steps[entry.node] = {"output": entry.output, "outcome": "SUCCESS", "port": entry.port}
    elif outcome in FAILURES:
        _broke(scope, entry.node, outcome, *entry[6:10])
        on_error = run.program.nodes[entry.node].on_error
        if isinstance(on_error, Goto) and scope.node(on_error.node).outcome is None:
            scope.node(on_error.node).phase, run.halted = DUE, True
    _end(run, scope, entry.node, state, outcome)


# --- what follows from the plan alone -------------------------------------------------------------


def _end(
    run: Run,
    scope: Scope,
    name: str,
    state: NodeState,
    outcome: Outcome,
    *,
    closes: bool = True,
) -> None:
    """`closes` is False for a failure that another entry follows: a jump, or the scope's end."""
    if state.phase is not None:
        _drop_node(run, scope, name, state)
    state.outcome = outcome
    if state.loop is not None and outcome not in FAILURES:
        state.loop = None
    scope.open -= 1
    if closes and scope.open == 0 and scope.parent is not None:
        if run.cause is not None:
            close(run, scope, name, state)
            return
        _close_iteration(run, scope, scope_output(scope, run.program.outputs_of(scope.name)), None)


def _close_iteration(run: Run, scope: Scope, output: Json, error: tuple[str, str] | None) -> None:
    outer = scope.parent
    assert outer is not None
    loop = outer.nodes[scope.loop].loop
    assert loop is not None
    del loop.open[scope.index]
    del run.scopes[scope.id]
    loop.done += 1
    loop.outputs[scope.index] = output
    if error is not None:
        loop.failed += 1
        loop.error = error
        work = run.program.plan.nodes[scope.loop].work
        if isinstance(work, Loop) and work.stop_on_error:
            loop.broken[scope.index] = scope
    run.touched.append((outer, scope.loop))


def _drop_nodes(run: Run, scope: Scope) -> None:
    """Stop whatever the nodes of a scope are at, without ending them."""
    for name, state in scope.nodes.items():
        if state.phase is not None:
            _drop_node(run, scope, name, state)
            state.phase = DUE


def _drop_node(run: Run, scope: Scope, name: str, state: NodeState) -> None:
    if state.phase is RUNNING:
        if run.outstanding.pop((scope.id, name), None) is not None:
            run.dropped_steps.append((scope.id, name, state.attempt))
            if name in run.program.doubtful:
                run.doubts.add((scope.id, name))
    elif state.phase is ASKED:
        _withdraw(run, scope.id, name, state)
    elif state.phase is RETRYING:
        _disarm(run, timer_key("retry", scope.id, name, state.attempt))
    elif state.phase is DELAYED:
        _disarm(run, timer_key("delay", scope.id, name, state.attempt))
        _disarm(run, timer_key("timeout", scope.id, name, state.attempt))
    elif state.phase is LOOPING and state.loop is not None:
        _disarm(run, timer_key("timeout", scope.id, name, state.attempt))
        for inner in state.loop.open.values():
            _drop_nodes(run, inner)
            del run.scopes[inner.id]
    if (scope.id, name) in run.doubts:
        run.doubts.discard((scope.id, name))
        keep_doubtful(run, scope, name)
    state.phase = state.config = None


def _withdraw(run: Run, scope: str, name: str, state: NodeState, *, answered: bool = False) -> None:
    del run.questions[scope, name]
    _disarm(run, timer_key("timeout", scope, name, state.attempt))
    kind = question_of(run.program.nodes[name])
    assert kind is not None
    run.dropped_questions.append(Withdraw(scope, name, state.attempt, kind, answered))


def _disarm(run: Run, key: str) -> None:
    if run.timers.pop(key, None) is not None:
        run.dropped_timers.append(key)


def _nothing(run: Run, entry: Logged) -> None:
    """It is for people."""


FOLDS: dict[type[Any], Callable[[Run, Any], None]] = {
    Started: _started,
    Dispatched: _dispatched,
    Succeeded: _succeeded,
    Failed: _failed,
    Logged: _nothing,
    Retrying: _retrying,
    Parked: _parked,
    Doubted: _doubted,
    Waiting: _waiting,
    Asked: _asked,
    Skipped: _skipped,
    Cancelled: _cancelled,
    LoopOpened: _loop_opened,
    Iterated: _iterated,
    IterationFailed: _iteration_failed,
    Jumped: _jumped,
    CancelRequested: _cancel_requested,
    Compensating: _compensating,
    Finished: _finished,
    Paused: _paused,
    Resumed: _resumed,
    Reopened: _reopened,
    Migrated: _migrated,
    Continued: _continued,
    Kept: _kept,
}
"""What each kind of entry does to a run."""
