"""The auditor's view of how a run is undone: what has to be, in which order, and how it ends.

Like the auditor it is plain and decides nothing. It is told of each entry with the steps before and
after it, and finds out by comparing them which attempts are gone without a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from permaflow.plan import FAILURES, ROOT, Compensation, Json, Node, Outcome, Plan, Task
from pipeline.core.entries import (
    Compensating,
    Dispatched,
    Doubted,
    Entry,
    Failed,
    Finished,
    Parked,
    Retrying,
    Succeeded,
)
from pipeline.core.events import AttemptDone, AttemptFailed, AttemptParked, Event, TimerFired

Where = tuple[str, str]
LOST = ("runner_lost", "outcome_unknown")


@dataclass(frozen=True)
class Execution:
    """What is to be undone once: a node in a scope, and how its step stands in `steps`."""

    scope: str
    node: str
    output: Json
    outcome: str


@dataclass
class Ledger:
    """What a run has done so far that it may have to undo. What ended at once is a group."""

    plan: Plan
    groups: list[list[Execution]] = field(default_factory=list)
    doubts: set[Where] = field(default_factory=set)
    """Nodes that are open, with an attempt behind them that nobody knows the outcome of."""

    def undone_by(self, node: str) -> Compensation | None:
        planned = self.plan.nodes.get(node)
        return planned.compensation if planned is not None else None

    def may_be_in_doubt(self, node: str) -> bool:
        found = self.undone_by(node)
        return found is not None and found.when_unknown and self.is_task(node)

    def is_task(self, node: str) -> bool:
        return isinstance(self.plan.nodes[node].work, Task)

    def note(self, entry: Entry, before: Mapping[Where, str], after: Mapping[Where, str]) -> None:
        """`before` and `after` say which nodes are with a runner, or between two attempts."""
        own: Where | None = None
        if isinstance(entry, Dispatched | Doubted | Parked | Retrying | Succeeded | Failed):
            own = entry.scope, entry.node
        group = [] if own is None else self._own(entry, own)
        for where in sorted(before.keys() - after.keys() - {own}):
            out = before[where] == "running" and self.may_be_in_doubt(where[1])
            if out or where in self.doubts:
                group.append(Execution(*where, None, "UNKNOWN"))
            self.doubts.discard(where)
        if group:
            self.groups.append(group)

    def _own(self, entry: Entry, own: Where) -> list[Execution]:
        match entry:
            case Succeeded(output=output):
                self.doubts.discard(own)
                if self.undone_by(own[1]) is not None:
                    return [Execution(*own, output, "SUCCESS")]
            case Failed(timed_out=late, code=code):
                doubtful = own in self.doubts or late or code in LOST
                self.doubts.discard(own)
                if doubtful and self.may_be_in_doubt(own[1]):
                    outcome = Outcome.TIMED_OUT if late else Outcome.FAILED
                    return [Execution(*own, None, outcome)]
            case Doubted() if self.may_be_in_doubt(own[1]):
                self.doubts.add(own)
            case Retrying(timed_out=late, code=code):
                if (late or code in LOST) and self.may_be_in_doubt(own[1]):
                    self.doubts.add(own)
        return []

    def anything(self, now: Mapping[Where, str]) -> bool:
        """Whether there is anything to undo, if the run ends now."""
        out = [node for (_, node), phase in now.items() if phase == "running"]
        return bool(self.groups or self.doubts or any(map(self.may_be_in_doubt, out)))


class Undoing:
    """Follows the entries from `Compensating` on."""

    def __init__(self, plan: Plan, cause: Compensating, groups: list[list[Execution]]) -> None:
        self.plan, self.cause = plan, cause
        self.left = [list(group) for group in groups]
        self.handlers = [] if cause.status == "cancelled" else list(plan.on_failure)
        assert self.left or self.handlers, "there was nothing to undo"
        self.current: Where | None = None
        self.node: Node | None = None
        self.attempts: dict[Where, int] = {}
        self.bases: dict[Where, int] = {}
        """The attempts that a node had when its visit began."""
        self.retries = 0
        self.out = False
        self.armed: str | None = None
        self.failed: list[Where] = []
        self.undone = 0
        self.executions: dict[tuple[str, str, int], Execution | None] = {}
        self.handled: dict[str, dict[str, Json]] = {}

    # --- events -----------------------------------------------------------------------------------

    def cause_of(self, event: Event) -> tuple[type[Any], ...] | None:
        match event:
            case AttemptDone() | AttemptFailed() | AttemptParked():
                attempt = self.attempts.get(event[:2])
                if event[:2] != self.current or not self.out or event.attempt != attempt:
                    return None
                if isinstance(event, AttemptDone):
                    return (Succeeded,)
                if isinstance(event, AttemptParked):
                    return (Parked,)
                assert self.node is not None
                again = event.retryable and self.retries < self.node.retry.max_retries
                return (Retrying,) if again else (Failed,)
            case TimerFired(key=key):
                return (Dispatched, Failed) if key == self.armed else None
            case _:
                return None

    def timers(self) -> set[str]:
        return set() if self.armed is None else {self.armed}

    # --- entries ----------------------------------------------------------------------------------

    def follow(self, entry: Entry) -> None:
        match entry:
            case Dispatched(scope, node, attempt):
                self._begin(scope, node)
                assert not self.out, "two attempts at a time"
                key = scope, node
                self.attempts[key] = self.attempts.get(key, 0) + 1
                assert attempt == self.attempts[key]
                self.out, self.armed = True, None
            case Succeeded(scope, node, output=output):
                assert self.out
                self._ended(scope, node, Outcome.SUCCESS, output)
            case Failed(scope, node, timed_out=late):
                if not self.out and entry.code == "evaluation":
                    self._begin(scope, node)
                else:
                    assert self.out
                self._ended(scope, node, Outcome.TIMED_OUT if late else Outcome.FAILED, None)
            case Retrying(scope, node, attempt) | Parked(scope, node, attempt):
                assert (scope, node) == self.current
                self.retries += isinstance(entry, Retrying)
                self.out = False
                self.armed = f"retry\x1f{scope}\x1f{node}\x1f{attempt}"
            case Finished():
                self._end(entry)
            case _:
                raise AssertionError(f"{entry} while the run is undone")

    def _begin(self, scope: str, node: str) -> None:
        """What begins is what runs already, or what has to come next."""
        if self.current is not None:
            assert (scope, node) == self.current, "two at a time"
            return
        key = scope, node, self.attempts.get((scope, node), 0)
        if self.left:
            wanted = next(
                (e for e in self.left[-1] if (e.scope, f"{e.node}#compensate") == (scope, node)),
                None,
            )
            assert wanted is not None, f"{node} in {scope!r} is not what is undone next"
            self.left[-1].remove(wanted)
            if not self.left[-1]:
                self.left.pop()
            undone_by = self.plan.nodes[wanted.node].compensation
            assert undone_by is not None
            self.node = Node(node, undone_by.type, undone_by.work, retry=undone_by.retry)
            self.executions[key] = wanted
        else:
            assert self.handlers, f"nothing calls for {node}"
            self.node = self.handlers.pop(0)
            assert (scope, node) == (ROOT, self.node.id)
            self.executions[key] = None
        self.current, self.retries = (scope, node), 0

    def _ended(self, scope: str, node: str, outcome: Outcome, output: Json) -> None:
        assert (scope, node) == self.current
        if self.executions[self._key()] is None:
            self.handled[node] = {"output": output, "outcome": outcome}
        self.undone += 1
        if outcome in FAILURES:
            self.failed.append((scope, node))
        self.current, self.out, self.armed = None, False, None
        self.bases[scope, node] = self.attempts.get((scope, node), 0)

    def _key(self) -> tuple[str, str, int]:
        assert self.current is not None
        return (*self.current, self.bases.get(self.current, 0))

    def _end(self, entry: Finished) -> None:
        assert self.current is None, "the run ended before what undoes it"
        assert not self.left, "something is left to undo"
        assert not self.handlers, "somebody has not been told"
        if self.failed:
            assert entry.status == "failed"
            assert entry.code in ("compensation_failed", "on_failure_failed")
            compensations = [node for _, node in self.failed if node.endswith("#compensate")]
            assert (entry.code == "compensation_failed") == bool(compensations)
            assert entry.node == (compensations or [node for _, node in self.failed])[0]
        else:
            undone = self.undone > len(self.handled)
            assert entry.status == ("compensated" if undone else self.cause.status)
            assert entry[1:4] == self.cause[1:4]

    # --- what each can see ------------------------------------------------------------------------

    def view(self, places: Mapping[str, Any]) -> dict[str, Any]:
        """What the attempt that has just begun sees; `places` are all that ever were."""
        assert self.current is not None
        execution = self.executions[self._key()]
        scope = self.current[0]
        loop, steps = None, dict[str, Any]()
        if execution is None:
            steps |= self.handled
        else:
            steps[execution.node] = {"output": execution.output, "outcome": execution.outcome}
        place = places[scope]
        while True:
            for name, step in place.steps.items():
                if step.outcome in (Outcome.SUCCESS, *FAILURES):
                    steps.setdefault(name, {"output": step.output, "outcome": step.outcome})
            if place.above is None:
                return {"loop": loop, "steps": steps}
            scope, _, index = place.above
            loop = loop or {"item": place.item, "index": index}
            place = places[scope]


def loose(places: Iterable[Any], phases: Sequence[str]) -> dict[Where, str]:
    """The nodes in these phases."""
    return {
        (place.id, name): step.phase
        for place in places
        for name, step in place.steps.items()
        if step.phase in phases
    }
