"""What a plan comes to, by recursion: a node's outcome is a function of the outcomes before it.

For plans without jumps, losers and timeouts, in which the order of things decides nothing; for the
others there is `tests.core.stepwise`. There is no queue here, no event, no state: each node is
asked how it ends, and asks those it waits for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from permaflow.errors import EvaluationError
from permaflow.plan import (
    FAILURES,
    ROOT,
    Always,
    And,
    AtLeast,
    Branch,
    Delay,
    Json,
    Loop,
    Never,
    Node,
    Not,
    OnUnknown,
    Or,
    Outcome,
    Pass,
    Plan,
    Question,
    Ref,
    Settled,
    Stop,
    Task,
    Trigger,
    When,
)
from pipeline.core.events import AttemptDone, AttemptFailed
from tests.core.plans import MOMENTS, TRIGGER_INPUT, Done, Put, Table, output_of
from tests.core.world import resolution

Where = tuple[str, str]
End = tuple[Outcome, str | None, Json]


@dataclass
class Facts:
    """Ends of nodes by (scope, node), and attempts by (scope, node, attempt)."""

    ends: dict[Where, tuple[Outcome, Json]] = field(default_factory=dict)
    attempts: set[tuple[str, str, int]] = field(default_factory=set)

    def add(self, other: Facts) -> None:
        self.ends |= other.ends
        self.attempts |= other.attempts


@dataclass
class Expected:
    """`sure` has to happen; `possible` happens unless the scope it is in fails before."""

    status: str
    output: Json
    sure: Facts
    possible: Facts


def expect(plan: Plan, table: Table, trigger: str) -> Expected:
    """How a run of `plan` ends if its attempts end as `table` says."""
    root = _Scope(plan, table, trigger, ROOT, ROOT, None)
    good = not plan.exits or any(root.end(name)[0] == Outcome.SUCCESS for name in plan.exits)
    status = "completed" if good and not root.failed else "failed"
    return Expected(status, root.output(plan.exits or plan.leaves[ROOT]), root.sure, root.possible)


class _Scope:
    """The root, or an iteration, played to its end as soon as it is made."""

    def __init__(
        self, plan: Plan, table: Table, trigger: str, scope: str, name: str, loop: Json
    ) -> None:
        self.plan, self.table, self.trigger, self.id = plan, table, trigger, scope
        self.context = {"trigger": TRIGGER_INPUT, "loop": loop, "steps": {}}
        self.ends: dict[str, End] = {}
        self.sure, self.possible = Facts(), Facts()
        self.failed = False
        for node in plan.nodes.values():
            if node.scope == name:
                outcome, _, _ = self.end(node.id)
                self.failed |= isinstance(node.on_error, Stop) and outcome in FAILURES
        if self.failed:
            self.possible.add(self.sure)
            self.sure = Facts()

    def output(self, last: tuple[str, ...]) -> Json:
        outputs = {name: self.end(name)[2] for name in last}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def end(self, name: str) -> End:
        """How a node ends: outcome, port and output."""
        if name not in self.ends:
            node = self.plan.nodes[name]
            end = self.ends[name] = self.work(node) if self.is_true(node.when) else _SKIPPED
            self.sure.ends[self.id, name] = end[0], end[2]
        return self.ends[name]

    def is_true(self, when: When) -> bool:
        match when:
            case Ref(node=other, outcomes=outcomes, port=port):
                outcome, taken, _ = self.end(other)
                return outcome in outcomes and port in (None, taken)
            case Not(term=term):
                return not self.is_true(term)
            case And(terms=terms):
                return all(map(self.is_true, terms))
            case Or(terms=terms):
                return any(map(self.is_true, terms))
            case AtLeast(count=count, terms=terms):
                return sum(map(self.is_true, terms)) >= count
            case Settled(terms=terms, every=every):
                truths = [self.is_true(term) for term in terms]
                return any(truths) and (all(truths) or not every)
            case Always() | Never():
                return isinstance(when, Always)

    def work(self, node: Node) -> End:
        try:
            match node.work:
                case Task(config=config) | Question(config=config):
                    return _FAILED if "value" in config else self.attempts(node)  # it has no value
                case Trigger():
                    chosen = node.id == self.trigger
                    return (Outcome.SUCCESS, None, TRIGGER_INPUT) if chosen else _SKIPPED
                case Pass(output=output):
                    assert output is None, "only a jump leads to what tells of an error"
                    return Outcome.SUCCESS, None, None
                case Branch(cases=cases, default=default):
                    for port, test in cases:
                        if test.evaluate(self.context):
                            return Outcome.SUCCESS, port, {"branch": port}
                    return Outcome.SUCCESS, default, {"branch": default}
                case Delay(until=until) if until is not None:
                    known = until.evaluate(self.context) in MOMENTS
                    return (Outcome.SUCCESS, None, None) if known else _FAILED
                case Delay(duration=duration):
                    assert duration is not None
                    number = isinstance(duration.evaluate(self.context), int | float)
                    return (Outcome.SUCCESS, None, None) if number else _FAILED
                case Loop() as loop:
                    return self.iterations(node.id, loop, loop.items.evaluate(self.context))
        except EvaluationError:
            return _FAILED

    def attempts(self, node: Node) -> End:
        attempt, failures = 0, 0
        while True:
            attempt += 1
            self.sure.attempts.add((self.id, node.id, attempt))
            answer = self.table(self.id, node.id, attempt)
            if isinstance(answer, Done):
                return Outcome.SUCCESS, answer.port, output_of(self.id, node.id, attempt)
            if isinstance(answer, Put):
                continue
            failures += 1
            again = answer.retryable and failures <= node.retry.max_retries
            if answer.timed_out and node.on_unknown is OnUnknown.FAIL:
                again = False
            if answer.timed_out and node.on_unknown is OnUnknown.ASK:
                match resolution((self.id, node.id, attempt)):
                    case AttemptDone(output=output):
                        return Outcome.SUCCESS, None, output
                    case AttemptFailed(retryable=retryable):
                        if retryable:
                            continue
                        return _FAILED
            if not again:
                return Outcome.TIMED_OUT if answer.timed_out else Outcome.FAILED, None, None

    def iterations(self, name: str, loop: Loop, items: Any) -> End:
        if isinstance(items, dict):
            items = [{"key": key, "value": value} for key, value in items.items()]
        if not isinstance(items, list) or len(items) > loop.max_items:
            return _FAILED
        around = f"{self.id}." if self.id else ""
        played = [
            _Scope(
                self.plan,
                self.table,
                self.trigger,
                f"{around}{name}[{index}]",
                name,
                {"item": item, "index": index},
            )
            for index, item in enumerate(items)
        ]
        broken = any(one.failed for one in played) and loop.stop_on_error
        for one in played:
            (self.possible if broken else self.sure).add(one.sure)
            self.possible.add(one.possible)
        if broken:
            return _FAILED
        leaves = self.plan.leaves[name]
        outputs = [None if one.failed else one.output(leaves) for one in played]
        failed = sum(one.failed for one in played)
        return Outcome.SUCCESS, None, {"items": outputs, "count": len(items), "failed": failed}


_SKIPPED: End = (Outcome.SKIPPED, None, None)
_FAILED: End = (Outcome.FAILED, None, None)
