"""Where a run stands: what may happen next in it, found out by looking at all of it.

While a run goes on nobody needs this, because each end of a node says whom to look at. It is for a
run that was held, has ended, or has another plan now; and for the end, when nothing is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from permaflow.plan import FAILURES, Outcome, Plan
from pipeline.core.effects import SetTimer
from pipeline.core.entries import Finished
from pipeline.core.state import DUE, LOOPING, Run, Scope


class Agenda:
    """What one call of `decide` has still to look at: the target of a jump, nodes that fire again
    (and their visits), nodes whose `when` may have become known, and loops.
    """

    __slots__ = ("due", "loops", "queue", "target")

    def __init__(self) -> None:
        self.target: tuple[Scope, str] | None = None
        self.due: deque[tuple[Scope, str, int]] = deque()
        self.queue: deque[tuple[Scope, str]] = deque()
        self.loops: deque[tuple[Scope, str]] = deque()

    def clear(self) -> None:
        self.target = None
        self.due.clear()
        self.queue.clear()
        self.loops.clear()

    def look_around(self, plan: Plan, scopes: Iterable[Scope]) -> None:
        """Look at all that is open in these scopes."""
        for scope in scopes:
            for name in plan.members[scope.name]:
                state = scope.nodes.get(name)
                if state is None or (state.phase is None and state.outcome is None):
                    self.queue.append((scope, name))
                elif state.phase is DUE:
                    self.due.append((scope, name, state.visits))
                elif state.phase is LOOPING:
                    self.loops.append((scope, name))


def is_due(run: Run, scope: Scope, name: str, visits: int) -> bool:
    """Whether a node still fires again, or a jump or a failure was faster."""
    state = scope.nodes[name]
    if run.scopes.get(scope.id) is not scope or state.visits != visits:
        return False
    return state.phase is None and state.outcome is None


def unarmed(run: Run) -> list[SetTimer]:
    """The timers that a reopened run needs, each with its whole time."""
    plan = run.program.plan
    found: list[SetTimer] = []
    for key in run.unarmed:
        timer = run.timers[key]
        limit = plan.nodes[timer.node].timeout if timer.node else plan.timeout
        assert limit is not None
        found.append(SetTimer(key, limit.total_seconds()))
    return found


def ending(run: Run) -> Finished:
    """How a run ends in which every node has."""
    exits = run.program.plan.exits
    ends = [run.root.nodes[name].outcome for name in exits]
    if not exits or Outcome.SUCCESS in ends:
        return Finished("completed")
    failed = next((n for n, s in run.root.nodes.items() if s.outcome in FAILURES), "")
    error = run.root.steps.get(failed, {}).get("error") or {}
    message = error.get("message") or f"None of the exitpoints succeeded: {', '.join(exits)}."
    return Finished("failed", error.get("code") or "no_exit_reached", message, failed)
