"""A journal as people see it: the steps of a run, and what to tell who watches it.

Unlike `fold` this needs no plan, keeps what has happened in scopes that have closed, and knows the
times. It decides nothing, and nothing is decided by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from itertools import count
from typing import Any

from permaflow.plan import Json
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

RUN_COMPLETED = "run_completed"
"""The event that is the last of every run, however it ended; a retried run has it several times."""

OPEN = frozenset({"running", "retrying", "waiting"})
"""The statuses of a step that has not ended."""


class Step:
    """One node in one scope. `ref` names an output that is kept apart.

    The output of a loop is how many items it has and how many failed; theirs are in their scopes.
    `waits_for` is the kind of the question that it has put, `run` the run that it started. `place`
    grows in the order in which steps began.
    """

    __slots__ = (
        "attempts",
        "error",
        "finished_at",
        "is_loop",
        "log",
        "node",
        "output",
        "place",
        "port",
        "ref",
        "run",
        "scope",
        "started_at",
        "status",
        "waits_for",
    )

    def __init__(self, scope: str, node: str, at: datetime, place: int) -> None:
        self.scope = scope
        self.node = node
        self.place = place
        self.status = "running"
        self.attempts = 0
        self.started_at = at
        self.finished_at: datetime | None = None
        self.port: str | None = None
        self.error: dict[str, Json] | None = None
        self.output: Json = None
        self.is_loop = False
        self.log: list[str] = []
        self.ref: str | None = None
        self.waits_for = ""
        self.run = ""


class History:
    """The steps of a run, in the order in which they began."""

    def __init__(self) -> None:
        self.steps: dict[tuple[str, str], Step] = {}
        self.status: str | None = None
        self._open: dict[str, dict[str, Step]] = {}
        """Scope → the steps in it that have not ended, by their nodes."""
        self._iterations: dict[Step, set[str]] = defaultdict(set)
        """Loop → the scopes of its iterations in which a step has begun."""
        self._broken: set[str] = set()
        self._places = count(1)
        self._reopened = False

    def add(self, at: datetime, entries: Iterable[Entry]) -> None:
        """The next row of the journal."""
        for entry in entries:
            if isinstance(entry, Logged):
                self._step(entry.scope, entry.node, at).log += entry.lines
            else:
                self._add(at, entry)

    def counts(self) -> dict[str, int]:
        """How many steps have each status."""
        found: dict[str, int] = {}
        for step in self.steps.values():
            found[step.status] = found.get(step.status, 0) + 1
        return found

    def _add(self, at: datetime, entry: Entry) -> None:
        match entry:
            case Dispatched(scope, node, attempt) | Asked(scope, node, attempt):
                step = self._begin(scope, node, at)
                step.attempts = attempt
                step.status = "waiting" if isinstance(entry, Asked) else "running"
                step.waits_for = getattr(entry, "kind", "")
                step.run = getattr(entry, "run", "")
            case Succeeded(scope, node, attempt, output, port, ref):
                step = self._step(scope, node, at)
                if not step.is_loop:
                    step.output = output
                step.port, step.ref, step.error = port, ref, None
                step.attempts = max(step.attempts, attempt, 1)
                self._end(step, at, "completed")
            case Failed(scope, node, attempt, code, message, timed_out, details):
                step = self._step(scope, node, at)
                step.attempts = max(step.attempts, attempt)
                step.error = _error(code, message, details)
                self._end(step, at, "timed_out" if timed_out else "failed")
            case Retrying(scope, node, _, delay, code, message):
                step = self._step(scope, node, at)
                step.status, step.error = "retrying", _error(code, message) | {"retry_in": delay}
            case Parked(scope, node) | Doubted(scope, node) | Waiting(scope, node):
                began = isinstance(entry, Waiting)
                step = (self._begin if began else self._step)(scope, node, at)
                step.status = "waiting"
                if isinstance(entry, Doubted):
                    step.error = _error(entry.code, entry.message)
            case Skipped(scope, node):
                self._end(self._begin(scope, node, at), at, "skipped")
            case Cancelled(scope, node):
                self._end(self._step(scope, node, at), at, "cancelled")
            case LoopOpened(scope, node):
                step = self._begin(scope, node, at)
                self._drop_iterations(step, at)
                step.is_loop = True
                step.output = {"count": _count(entry), "failed": 0}
            case Jumped(scope, dropped=dropped):
                for node in dropped:
                    self._end(self._step(scope, node, at), at, "cancelled")
            case IterationFailed(scope):
                self._iteration_failed(scope, at)
            case _:
                self._add_of_run(at, entry)

    def _add_of_run(self, at: datetime, entry: Entry) -> None:
        match entry:
            case Kept(scope, node, outcome, output, port, ref, code, message, details=details):
                step = self._begin(scope, node, at)
                step.output, step.port, step.ref = output, port, ref
                step.error = _error(code, message, details) if code else None
                self._end(step, at, "completed" if outcome == "SUCCESS" else outcome.lower())
            case Iterated(scope, node) if self._reopened:
                self._loop_goes_on(self._step(scope, node, at))
            case Reopened():
                self.status, self._reopened = None, True
            case Finished(status=status):
                self.status = status
                self._end_open(at)
            case Compensating():
                self.status = "compensating"
                self._end_open(at)
            case _:
                pass

    def _end_open(self, at: datetime) -> None:
        for scope in list(self._open):
            self._drop(scope, at)

    def _step(self, scope: str, node: str, at: datetime) -> Step:
        step = self.steps.get((scope, node))
        if step is None:
            step = self.steps[scope, node] = Step(scope, node, at, next(self._places))
            self._opens(step)
        return step

    def _begin(self, scope: str, node: str, at: datetime) -> Step:
        """The step, open; after a jump, or when the run is retried, it begins anew."""
        step = self._step(scope, node, at)
        if self._reopened and scope and self.status is None:
            self._goes_on(scope)
        if step.status == "skipped":
            self.steps[scope, node] = self.steps.pop((scope, node))
            step.place = next(self._places)
        if step.finished_at is not None:
            step.started_at, step.finished_at = at, None
            step.output = step.ref = step.port = step.error = None
            step.log = []
        step.status = "running"
        self._opens(step)
        return step

    def _opens(self, step: Step) -> None:
        here = self._open.setdefault(step.scope, {})
        if not here and (loop := self._loop_of(step.scope)):
            self._iterations[loop].add(step.scope)
        here[step.node] = step

    def _end(self, step: Step, at: datetime, status: str) -> None:
        step.status = status
        step.finished_at = at
        here = self._open.get(step.scope, {})
        here.pop(step.node, None)
        if not here:
            self._open.pop(step.scope, None)
        self._drop_iterations(step, at)

    def _drop(self, scope: str, at: datetime) -> None:
        """What is open in a scope does not outlive it."""
        for step in list(self._open.get(scope, {}).values()):
            self._end(step, at, "cancelled")

    def _drop_iterations(self, loop: Step, at: datetime) -> None:
        for scope in self._iterations.pop(loop, ()):
            self._drop(scope, at)

    def _iteration_failed(self, scope: str, at: datetime) -> None:
        self._drop(scope, at)
        loop = self._loop_of(scope)
        if loop is not None:
            loop.output["failed"] += 1
            self._broken.add(scope)

    def _loop_of(self, scope: str) -> Step | None:
        """The loop that an iteration belongs to."""
        # As `fold` names scopes; a loop may have dots and an @ in its own name, but no brackets.
        cut = scope.rfind("].") + 1
        outer, name = scope[:cut], scope[cut:].removeprefix(".").rpartition("[")[0]
        loop = self.steps.get((outer, name)) or self.steps.get((outer, name.rpartition("@")[0]))
        return loop if loop is not None and loop.is_loop else None

    def _goes_on(self, scope: str) -> None:
        """A retry goes on with an iteration, and so with its loop."""
        loop = self._loop_of(scope)
        if loop is not None:
            if scope in self._broken:
                self._broken.discard(scope)
                loop.output["failed"] -= 1
            self._loop_goes_on(loop)

    def _loop_goes_on(self, loop: Step) -> None:
        if loop.finished_at is not None:
            loop.status, loop.finished_at, loop.error = "running", None, None
            self._opens(loop)
            if loop.scope:
                self._goes_on(loop.scope)


def _error(code: str, message: str, details: Json = None) -> dict[str, Json]:
    error: dict[str, Json] = {"code": code, "message": message}
    return error if details is None else error | {"details": details}


def _count(loop: LoopOpened) -> int | None:
    """How many items a loop has; journals once did not tell it of large ones."""
    return len(loop.items) if isinstance(loop.items, list) else loop.size


def tell(entry: Entry) -> tuple[str, dict[str, Any]]:
    """The name of an event, and its data."""
    name, data = _NAMES[type(entry)], dict(entry._asdict())
    match entry:
        case Succeeded(ref=None) | Skipped() | Cancelled() | Dispatched():
            data.pop("ref", None)
        case Succeeded():
            del data["output"]
        case LoopOpened():
            data = {"scope": entry.scope, "node": entry.node, "count": _count(entry)}
        case Retrying() | Failed() | Doubted():
            error = _error(data.pop("code"), data.pop("message"), data.pop("details", None))
            data["error"] = error
        case (
            Finished(status=status, code=code, message=message, node=node)
            | Compensating(status=status, code=code, message=message, node=node)
        ):
            data = {"status": status, "error": None}
            if code:
                data["error"] = {"code": code, "message": message, "node": node}
        case _:
            pass
    return name, data


_NAMES: dict[type[Any], str] = {
    Started: "run_started",
    Dispatched: "step_started",
    Succeeded: "step_completed",
    Failed: "step_failed",
    Logged: "step_logged",
    Retrying: "step_retrying",
    Parked: "step_waiting",
    Doubted: "step_waiting",
    Waiting: "step_waiting",
    Asked: "step_waiting",
    Skipped: "step_skipped",
    Cancelled: "step_cancelled",
    LoopOpened: "loop_started",
    Iterated: "loop_advanced",
    IterationFailed: "iteration_failed",
    Jumped: "step_jumped",
    CancelRequested: "run_cancel_requested",
    Compensating: "run_compensating",
    Finished: RUN_COMPLETED,
    Paused: "run_paused",
    Resumed: "run_resumed",
    Reopened: "run_reopened",
    Migrated: "run_migrated",
    Continued: "run_continued",
    Kept: "step_kept",
}
