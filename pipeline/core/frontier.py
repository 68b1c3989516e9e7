"""Where a run stands: what may happen next in it, found out by looking at all of it.

While a run goes on nobody needs this, because each end of a node says whom to look at. It is for a
run that was held, has ended, or has another plan now; and for the end, when nothing is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from permaflow.plan import FAILURES, Node, Outcome, Plan
from pipeline.core.effects import SetTimer
from pipeline.core.entries import Finished
from pipeline.core.state import DUE, LOOPING, Run, Scope, timer_key


class Agenda:
    """What one call of `decide` has still to look at: the target of a jump, nodes whose `when` may
    have become known, and loops.
    """

    queue: deque[tuple[Scope, str]]
    loops: deque[tuple[Scope, str]]
    target: tuple[Scope, str] | None = None

    def clear(self) -> None:
        self.target = None
        self.queue.clear()
        self.loops.clear()

    def look_around(self, plan: Plan, scopes: Iterable[Scope]) -> list[tuple[Scope, str, int]]:
        """Look at all that is open in these scopes; answers the nodes that fire again, and which
        visit of them that is.
        """
        due: list[tuple[Scope, str, int]] = []
        for scope in scopes:
            for name in plan.members[scope.name]:
                state = scope.nodes.get(name)
                if state is None or (state.phase is None and state.outcome is None):
                    self.queue.append((scope, name))
                elif state.phase is DUE:
                    due.append((scope, name, state.visits))
                elif state.phase is LOOPING:
                    self.loops.append((scope, name))
        return due


def is_due(run: Run, scope: Scope, name: str, visits: int) -> bool:
    """Whether a node still fires again, or a jump, a failure or the end was faster."""
    if run.finished or run.cause is not None or run.scopes.get(scope.id) is not scope:
        return False
    state = scope.nodes[name]
    return state.visits == visits and state.phase is None and state.outcome is None


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


def under_way(run: Run, scope: Scope, target: str) -> list[str]:
    """What a jump to `target` drops, sorted."""
    names = run.program.descendants(target)
    nodes = scope.nodes
    return sorted(n for n in names if n in nodes and nodes[n].phase not in (None, DUE))


def limit_of(scope: Scope, node: Node) -> tuple[SetTimer, ...]:
    """The timer that limits what no runner does."""
    if node.timeout is None:
        return ()
    key = timer_key("timeout", scope.id, node.id, scope.nodes[node.id].attempt)
    return (SetTimer(key, node.timeout.total_seconds()),)


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
