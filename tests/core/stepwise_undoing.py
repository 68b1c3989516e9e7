"""How a run that is played along is undone: the last that ended is the first that is undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from unittest.mock import ANY

from permaflow.plan import ROOT, Node, Pass, Plan, Task
from pipeline.core.entries import (
    Compensating,
    Dispatched,
    Entry,
    Failed,
    Finished,
    Parked,
    Retrying,
    Succeeded,
)
from pipeline.core.events import AttemptDone, AttemptFailed, AttemptParked, Event, TimerFired

Where = tuple[str, str]


def is_doubtful(node: Node) -> bool:
    """Whether an attempt of it is undone, too, of which nobody knows what it did."""
    found = node.compensation
    return found is not None and found.when_unknown and isinstance(node.work, Task)


class Run(Protocol):
    """What is played along: `to_undo` are groups of what ended at once, which have no order."""

    plan: Plan
    to_undo: list[list[Where]]
    end: Finished | None
    said: Sequence[Entry]
    entries: list[Entry]

    def write(self, entry: Entry) -> None: ...

    def log(self, event: AttemptDone | AttemptFailed) -> None: ...


class Undoing:
    """What undoes a run, one after the other, and then tells of its failure."""

    def __init__(self, run: Run, cause: Compensating) -> None:
        self.run, self.cause = run, cause
        self.handlers = [] if cause.status == "cancelled" else list(run.plan.on_failure)
        self.names = {node.id for node in self.handlers}
        self.attempts: dict[Where, int] = {}
        self.current: Where | None = None
        self.node = Node("", "", Pass())
        self.retries = 0
        self.out = False
        self.undone = 0
        self.failed: list[str] = []

    def go_on(self) -> None:
        while self.current is None and self.run.end is None:
            if self.run.to_undo:
                group = self.run.to_undo[-1]
                scope, name = where = self.first(group)
                group.remove(where)
                self.run.to_undo = [left for left in self.run.to_undo if left]
                what = self.run.plan.nodes[name].compensation
                assert what is not None
                node = Node(f"{name}#compensate", what.type, what.work, retry=what.retry)
                self.undone += 1
            elif self.handlers:
                scope, node = ROOT, self.handlers.pop(0)
            else:
                self.finish()
                break
            self.node, self.retries = node, 0
            self.current = scope, node.id
            self.attempt()

    def first(self, group: list[Where]) -> Where:
        """The one of them that the run began first."""
        rest = self.run.said[len(self.run.entries) :]
        began = [(e[0], e[1].removesuffix("#compensate")) for e in rest[:1]]
        return next((where for where in group if where in began), group[0])

    def attempt(self) -> None:
        assert self.current is not None
        assert isinstance(self.node.work, Task)
        before = self.attempts.get(self.current, 0)
        if "value" in self.node.work.config:  # it has none
            self.run.write(Failed(*self.current, before, "evaluation", ANY))
            self.ended(well=False)
            return
        self.attempts[self.current] = before + 1
        self.run.write(Dispatched(*self.current, before + 1))
        self.out = True

    def report(self, event: Event) -> None:
        assert self.current is not None
        key = (*self.current, self.attempts[self.current])
        match event:
            case TimerFired() if not self.out:
                if event.key == "\x1f".join(map(str, ("retry", *key))):
                    self.attempt()
            case AttemptParked() if self.out and event[:3] == key:
                self.run.write(Parked(*event))
                self.out = False
            case AttemptDone() if self.out and event[:3] == key:
                self.run.log(event)
                self.run.write(Succeeded(*event[:6]))
                self.ended(well=True)
            case AttemptFailed() if self.out and event[:3] == key:
                self.run.log(event)
                if event.retryable and self.retries < self.node.retry.max_retries:
                    self.retries += 1
                    self.out = False
                    self.run.write(Retrying(*key, ANY, event.code, ANY, event.timed_out))
                else:
                    self.run.write(Failed(*event[:4], ANY, event.timed_out))
                    self.ended(well=False)
            case _:
                pass

    def ended(self, *, well: bool) -> None:
        if not well:
            self.failed.append(self.node.id)
        self.current, self.out = None, False

    def finish(self) -> None:
        undoing = [name for name in self.failed if name not in self.names]
        if self.failed:
            code = "compensation_failed" if undoing else "on_failure_failed"
            end = Finished("failed", code, ANY, (undoing or self.failed)[0])
        else:
            status = "compensated" if self.undone else self.cause.status
            end = Finished(status, *self.cause[1:])
        self.run.end = end
        self.run.write(end)
