"""What undoes a run that did not complete, and in which order.

Rules of this file:

* While a run goes on, whatever it may have to undo is kept in `run.undo`, in the order in which it
  ended: each execution of a node with a compensation that succeeded, and, unless the compensation
  is told otherwise, each of which nobody knows what it did. An execution is one visit of one node
  in one scope; however many attempts it took, it is undone once.
* An outcome is unknown when an attempt was with a runner and its result is no longer wanted, or
  outlived its timeout, or its runner was lost. An attempt that was refused or put off did nothing.
* The entry `Compensating` drops what is open, and opens the first compensation: a scope that has
  the id of the execution's own, and one node in it, `<node>#compensate`. When that ends, whichever
  way, the next one is opened, and after the last the nodes of `on_failure`, each the same way.
* A node that is undone once more, after a goto, counts its attempts on: it is another visit.
"""

from __future__ import annotations

from permaflow.plan import FAILURES, ROOT, Json
from pipeline.core.entries import Compensating, Finished
from pipeline.core.program import compensation_of
from pipeline.core.state import Execution, NodeState, Overlay, Run, Scope

_NAMED = 10
"""So many of those that failed are told of in an error; each is a step of its own to look at."""


def keep(run: Run, scope: Scope, name: str, step: dict[str, Json]) -> None:
    """This execution is to be undone if the run does not complete."""
    run.undo.append(Execution(scope.id, name, step, scope.context))


def keep_doubtful(run: Run, scope: Scope, name: str) -> None:
    """An attempt of it is gone, and nobody knows what that did."""
    step = scope.steps.get(name) or {"output": None, "outcome": "UNKNOWN", "port": None}
    keep(run, scope, name, step)


def calls_for_it(run: Run, status: str) -> bool:
    """Whether there is anything to do before the run may end with this status."""
    program = run.program
    if not program.compensates:
        return False
    return bool(
        run.undo
        or run.doubts
        or (program.plan.on_failure and status != "cancelled")
        or any(name in program.doubtful for _, name in run.outstanding)
    )


def open_next(run: Run) -> None:
    """Open the scope of what is undone next, or of the next node of `on_failure`."""
    run.repair = None
    error = _error_of(run)
    if run.undo:
        execution = run.undo.pop()
        context = {**execution.context, "error": error}
        own: dict[str, Json] = {execution.node: execution.step}
        context["steps"] = Overlay(own, context["steps"])
        _open(run, execution.scope, compensation_of(execution.node), context, {})
        return
    cause = run.cause
    handlers = run.program.plan.on_failure
    if cause is not None and cause.status != "cancelled" and run.handled < len(handlers):
        context = dict(run.root.context)
        context["error"] = {**error, "compensations_failed": run.unrepaired[:_NAMED]}
        context["steps"] = Overlay(run.handler_steps, run.root.steps)
        context["run"] = {**context["run"], "status": cause.status}
        node = handlers[run.handled]
        run.handled += 1
        _open(run, ROOT, node.id, context, run.handler_steps)


def _open(
    run: Run, scope_id: str, name: str, context: dict[str, Json], steps: dict[str, Json]
) -> None:
    scope = Scope(scope_id, ROOT, 1, context)
    scope.steps = steps
    scope.parent = run.root
    attempts, visits = run.repaired.get((scope_id, name), (0, 0))
    state = scope.nodes[name] = NodeState()
    state.attempt, state.visits = attempts, visits
    run.scopes[scope_id] = scope
    run.repair = scope, name


def close(run: Run, scope: Scope, name: str, state: NodeState) -> None:
    """One of them has ended; the next one is opened."""
    del run.scopes[scope.id]
    run.repaired[scope.id, name] = state.attempt, state.visits + 1
    if state.outcome in FAILURES:
        error = scope.steps[name]["error"]
        run.unrepaired.append(
            {"scope": scope.id, "node": name, "code": error["code"], "message": error["message"]}
        )
    open_next(run)


def _error_of(run: Run) -> dict[str, Json]:
    """What the run ended for, as its steps would have seen it."""
    cause = run.cause
    assert cause is not None
    seen = run.root.steps.get(cause.node, {}).get("error")
    if seen is not None and seen["code"] == cause.code:
        error: dict[str, Json] = seen
        return error
    return {
        "node": cause.node,
        "code": cause.code,
        "message": cause.message,
        "attempt": 0,
        "details": None,
    }


def end_of(run: Run) -> Finished:
    """How the run ends, now that it has been undone."""
    cause = run.cause
    assert cause is not None
    failed = run.unrepaired
    if failed:
        first = next((f for f in failed if f["node"] not in run.program.handlers), failed[0])
        is_handler = first["node"] in run.program.handlers
        code = "on_failure_failed" if is_handler else "compensation_failed"
        what = "to handle its failure" if is_handler else "to undo it"
        message = (
            f"The run ended as {cause.status} ({cause.code}), and {len(failed)} of "
            f"{len(run.repaired)} steps {what} failed: "
            + "; ".join(f"{_place(f)} ({f['code']})" for f in failed[:_NAMED])
            + ("; …" if len(failed) > _NAMED else "")
        )
        return Finished("failed", code, message, first["node"])
    undone = any(name not in run.program.handlers for _, name in run.repaired)
    return Finished("compensated" if undone else cause.status, *cause[1:])


def error_of(run: Run) -> dict[str, Json]:
    """What the error of a run tells beside its code and message."""
    cause = run.cause
    if cause is None or not run.unrepaired:
        return {}
    told = {"code": cause.code, "message": cause.message, "node": cause.node}
    return {"cause": told, "failed": run.unrepaired[:_NAMED]}


def _place(failed: dict[str, Json]) -> str:
    return f"{failed['scope']}.{failed['node']}" if failed["scope"] else str(failed["node"])


def forget(run: Run) -> None:
    """The run goes on, after nodes of `on_failure` at most. They run again if it fails again."""
    if run.cause is None:
        return
    assert run.error is not None
    run.error["node"] = run.cause.node
    run.cause = run.repair = None
    run.scopes = {ROOT: run.root}
    run.unrepaired, run.handled, run.handler_steps = [], 0, {}


def begin(run: Run, entry: Compensating) -> None:
    """Nothing counts any more but this."""
    run.cause = entry
    run.scopes.clear()
    run.touched.clear()
    open_next(run)
