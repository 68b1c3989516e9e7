"""A second engine that decides nothing: it checks that each entry of a journal was lawful.

It is slow and plain on purpose. After every event it knows, by looking at everything again, which
entries may follow; a run may choose their order, but must leave nothing undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from permaflow.plan import (
    FAILURES,
    ROOT,
    Always,
    And,
    AtLeast,
    Branch,
    Continue,
    Delay,
    Goto,
    Json,
    Loop,
    Never,
    Not,
    OnUnknown,
    Or,
    Outcome,
    Pass,
    Plan,
    Question,
    Ref,
    Settled,
    Task,
    Trigger,
    When,
)
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
    Logged,
    LoopOpened,
    Parked,
    Paused,
    Resumed,
    Retrying,
    Skipped,
    Started,
    Succeeded,
    Waiting,
)
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    AttemptParked,
    CancelAsked,
    Event,
    TimerFired,
    Woken,
)
from pipeline.core.state import NodeState, Run
from tests.core.plans import TRIGGER_INPUT
from tests.core.undoing import LOST, Ledger, Undoing, loose

IDLE, RUNNING, PUT_OFF, DELAYED, LOOPING = "idle", "running", "put off", "delayed", "looping"
TEN_YEARS = 3_660 * 86_400.0
_ORDER = {False: 0, None: 1, True: 2}
_VALUE = (False, None, True)


@dataclass
class Step:
    """A node in a scope."""

    phase: str = IDLE
    outcome: Outcome | None = None
    port: str | None = None
    attempt: int = 0
    retries: int = 0
    doubted: bool = False
    visits: int = 0
    output: Json = None
    items: list[Json] | None = None
    opened: int = 0
    results: dict[int, Json] = field(default_factory=dict)
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Place:
    """A scope: the root, or an iteration."""

    id: str
    name: str
    steps: dict[str, Step]
    above: tuple[str, str, int] | None = None
    item: Json = None


def holds(when: When, steps: Mapping[str, Step]) -> bool | None:
    """Kleene's logic by its other definition, with F < ? < T: `and` is the least of its terms."""
    match when:
        case Ref(node=name, outcomes=outcomes, port=port):
            step = steps[name]
            if step.outcome is None:
                return None
            return step.outcome in outcomes and port in (None, step.port)
        case Not(term=term):
            return _VALUE[2 - _ORDER[holds(term, steps)]]
        case Always() | Never():
            return isinstance(when, Always)
        case And(terms=terms):
            return _VALUE[min((_ORDER[holds(t, steps)] for t in terms), default=2)]
        case Or(terms=terms):
            return _VALUE[max((_ORDER[holds(t, steps)] for t in terms), default=0)]
        case AtLeast(count=count, terms=terms):
            ranked = sorted((_ORDER[holds(t, steps)] for t in terms), reverse=True)
            return _VALUE[([2] * (count <= 0) + ranked[count - 1 :] + [0])[0]]
        case Settled(terms=terms, every=every):
            values = [holds(t, steps) for t in terms]
            if every and any(value is False for value in values):
                return False
            return None if any(value is None for value in values) else any(values)


class Auditor:
    """Follows a run entry by entry; raises `AssertionError` at the first unlawful one."""

    def __init__(self, plan: Plan, trigger: str) -> None:
        self.plan = plan
        triggers = [n.id for n in plan.nodes.values() if isinstance(n.work, Trigger)]
        self.trigger = trigger if trigger in triggers else (triggers or [""])[0]
        self.places = {ROOT: Place(ROOT, ROOT, {name: Step() for name in self._members(ROOT)})}
        self.started = False
        self.finished: Finished | None = None
        self.timers: dict[str, tuple[str, str]] = {}
        self.views: dict[tuple[str, str, int], dict[str, Any]] = {}
        """What each attempt could see when it was dispatched."""
        self.ledger = Ledger(plan)
        self.undoing: Undoing | None = None
        self.ever = dict(self.places)
        """All places that ever were."""
        self.used = 0
        self.paused = self.halted = False
        self.owed: set[tuple[str, str]] = set()
        """The targets of jumps that were made while the run was paused."""
        self._about: tuple[str, str] | None = None
        """The node whose firing the last entries announced: a jump's target, a join's winner."""
        self._doomed: tuple[Place, Failed] | None = None
        """A failure that the next entry has to answer."""

    def _members(self, scope: str) -> list[str]:
        return [node.id for node in self.plan.nodes.values() if node.scope == scope]

    def compare(self, run: Run) -> None:
        """Both know the same places, and the same of every step in them."""
        if self.finished is not None:
            assert run.status == self.finished.status
            return
        if self.undoing is not None:
            assert run.status == "compensating"
            current = self.undoing.current
            where = run.repair and (run.repair[0].id, run.repair[1])
            assert where == current
            assert run.outstanding.keys() == ({current} if self.undoing.out else set())
            assert run.timers.keys() == self.undoing.timers()
            return
        assert run.scopes.keys() == self.places.keys()
        assert run.steps_used == self.used
        for place in self.places.values():
            nodes = run.scopes[place.id].nodes
            for name, step in place.steps.items():
                state = nodes.get(name) or NodeState()
                assert (state.outcome, state.port) == (step.outcome, step.port), name
                assert (state.attempt, state.retries) == (step.attempt, step.retries), name
                assert (state.visits, state.output) == (step.visits, step.output), name
                if state.loop is not None:
                    got = {i: state.loop.outputs[i] for i in step.results}
                    assert got == step.results, name

    def note(self, entries: Sequence[Entry]) -> None:
        """Somebody holds the run, or lets it go on."""
        for entry in entries:
            assert isinstance(entry, Paused | Resumed), f"{entry} is not followed: see `audited`"
            self.paused = isinstance(entry, Paused)
            self.halted |= isinstance(entry, Resumed)

    # --- events -----------------------------------------------------------------------------------

    def follow(self, event: Event, entries: Sequence[Entry]) -> None:
        """Check the entries that were made of one event."""
        rest = list(entries)
        if self.finished is not None:
            assert not rest, "something happened after the end"
            return
        if self.halted and not self.paused:
            assert isinstance(event, Woken), "a run that goes on is woken first"
            self._go_on(rest)
            return
        expected = self.undoing.cause_of(event) if self.undoing else self._cause(event)
        if expected is None:
            assert not rest, f"{event} changes nothing, but made {rest[0]}"
            return
        assert rest, f"{event} was not heard"
        first = rest.pop(0)
        if isinstance(event, AttemptDone | AttemptFailed) and event.log:
            assert first == Logged(*event[:3], event.log)
            first = rest.pop(0)
        assert isinstance(first, expected), f"{event} was answered with {first}"
        if self.undoing is not None:
            assert not isinstance(first, Succeeded) or first == Succeeded(*event[:6])
            self._apply(first)
        else:
            self._answer(event, first)
        self._follow_on(rest)

    def _go_on(self, rest: list[Entry]) -> None:
        assert isinstance(rest.pop(0), Continued)
        self.halted = False
        if not self.started:
            self._answer(Woken(), rest[0])
            rest.pop(0)
        self._follow_on(rest)

    def _follow_on(self, rest: list[Entry]) -> None:
        """What follows from the first entry."""
        for entry in rest:
            if self.undoing is None:
                self._lawful(entry)
            self._apply(entry)
        self._nothing_left()

    def _cause(self, event: Event) -> type[Any] | tuple[type[Any], ...] | None:
        match event:
            case AttemptDone() | AttemptFailed() | AttemptParked():
                place = self.places.get(event.scope)
                step = place.steps.get(event.node) if place else None
                if step is None or step.phase != RUNNING or step.attempt != event.attempt:
                    return None
                if isinstance(event, AttemptDone):
                    return Succeeded
                if isinstance(event, AttemptParked):
                    return Parked
                return self._after_failure(event, step)
            case TimerFired() | Woken() if self.paused:
                return None
            case TimerFired(key="run"):
                armed = self.started and self.plan.timeout is not None
                return self._ending() if armed else None
            case TimerFired(key=key):
                if key not in self.timers:
                    return None
                if key.startswith("timeout"):
                    work = self.plan.nodes[self.timers[key][1]].work
                    leaves = isinstance(work, Question) and work.timeout_port is not None
                    return Succeeded if leaves else Failed
                if key.startswith("delay"):
                    return Succeeded
                return Dispatched, Asked, Failed, *self._ending()
            case CancelAsked():
                return CancelRequested
            case Woken():
                return None if self.started else Started

    def _after_failure(self, event: AttemptFailed, step: Step) -> type[Any] | None:
        node = self.plan.nodes[event.node]
        again = event.retryable and step.retries < node.retry.max_retries
        unknown = event.timed_out or event.code in LOST
        if step.doubted and event.code == "resolved":
            return Retrying if event.retryable else Failed
        if step.doubted and unknown:
            return None
        if unknown and isinstance(node.work, Task) and node.on_unknown is not OnUnknown.RETRY:
            return Doubted if node.on_unknown is OnUnknown.ASK else Failed
        return Retrying if again else Failed

    def _answer(self, event: Event, entry: Entry) -> None:
        """The first entry says what the event said."""
        match event, entry:
            case AttemptDone(), Succeeded():
                assert entry == Succeeded(*event[:6])
            case AttemptFailed(), Doubted():
                assert entry == Doubted(*event[:5])
            case AttemptFailed(code="resolved"), Retrying():
                assert entry.delay == 0.0
            case AttemptFailed(), Retrying():
                retry = self.plan.nodes[event.node].retry
                longest = retry.max_delay.total_seconds()
                asked = event.after if event.after is not None and event.after > 0 else 0.0
                assert min(asked, longest) <= entry.delay <= longest
                assert entry[:3] == event[:3]
            case AttemptFailed(), Failed():
                assert entry[:5] == event[:5]
                assert (entry.timed_out, entry.details) == (event.timed_out, event.details)
            case AttemptParked(), Parked():
                assert (*entry[:3], entry.reason) == (*event[:3], event.reason)
                asked = event.after if event.after > 0 else 0.0
                assert entry.delay == min(asked, TEN_YEARS)
            case TimerFired(key=key), Failed() if key.startswith("timeout"):
                assert entry[:2] == self.timers[key]
                assert (entry.timed_out, entry.code) == (True, "timeout")
            case TimerFired(key="run"), Finished() | Compensating():
                assert entry.status == "timed_out"
            case TimerFired(key=key), Succeeded() | Dispatched() | Asked() | Failed():
                assert entry[:2] == self.timers[key]
                if key.startswith("timeout"):
                    work = self.plan.nodes[entry.node].work
                    assert isinstance(work, Question)
                    assert entry.port == work.timeout_port
                if isinstance(entry, Dispatched | Asked):
                    self._within_limit()
            case _:
                pass
        self._apply(entry)
        if isinstance(entry, CancelRequested):
            self._doomed = (self.places[ROOT], Failed(ROOT, "", 0, "cancelled", ""))

    # --- what may follow --------------------------------------------------------------------------

    def _lawful(self, entry: Entry) -> None:
        if self._doomed is not None:
            self._settles_failure(entry)
            return
        match entry:
            case Finished() | Compensating():
                self._lawful_end(entry)
            case Iterated():
                step = self.places[entry.scope].steps[entry.node]
                loop = self.plan.nodes[entry.node].work
                assert isinstance(loop, Loop)
                assert step.phase == LOOPING
                assert step.items is not None
                assert not (step.broken and loop.stop_on_error), "a broken loop went on"
                open_now = step.opened - len(step.results)
                assert entry.first == step.opened, "an iteration was left out or came twice"
                room = min(loop.parallel - open_now, len(step.items) - step.opened)
                assert entry.size == room > 0
            case Succeeded() | Failed() if self._step(entry).phase == LOOPING:
                step = self._step(entry)
                assert step.items is not None
                if isinstance(entry, Failed):
                    assert (entry.code, entry.message) in step.broken.values()
                    loop = self.plan.nodes[entry.node].work
                    assert isinstance(loop, Loop)
                    assert loop.stop_on_error
                else:
                    assert len(step.results) == len(step.items), "a loop ended before its items"
            case Cancelled():
                self._lawful_cancel(entry)
            case Skipped():
                node, where = self.plan.nodes[entry.node], (entry.scope, entry.node)
                place = self.places[entry.scope]
                assert place.steps[entry.node].phase == IDLE
                assert place.steps[entry.node].outcome is None, "skipped what had ended"
                other = isinstance(node.work, Trigger) and node.id != self.trigger
                fires = holds(node.when, place.steps)
                jumped = self._about == (entry.scope, entry.node) or where in self.owed
                assert fires is False or (other and (fires or jumped))
                self._about = None
                self.owed.discard(where)
            case Dispatched() | Asked() | Succeeded() | Waiting() | LoopOpened() | Failed():
                self._lawful_fire(entry)
            case _:
                raise AssertionError(f"{entry} has no reason")

    def _step(self, entry: Any) -> Step:
        return self.places[entry.scope].steps[entry.node]

    def _settles_failure(self, entry: Entry) -> None:
        """What a failure calls for comes next: the end of its scope, or a jump."""
        assert self._doomed is not None
        place, failed = self._doomed
        self._doomed = None
        if not failed.node:
            assert isinstance(entry, self._ending("cancelled"))
            assert entry.status == "cancelled"
            return
        on_error = self.plan.nodes[failed.node].on_error
        code = failed.code
        if isinstance(on_error, Goto):
            target = self.plan.nodes[on_error.node]
            if place.steps[target.id].visits < target.max_visits:
                again = self._follow(place, target.id)
                dropped = sorted(name for name in again if place.steps[name].phase != IDLE)
                assert entry == Jumped(failed.scope, failed.node, target.id, dropped)
                return
            code = "visit_limit"
        if place.id == ROOT:
            assert isinstance(entry, self._ending())
            assert (entry.status, entry.code, entry.node) == ("failed", code, failed.node)
        else:
            assert isinstance(entry, IterationFailed)
            assert (entry.scope, entry.code) == (place.id, code)

    def _ending(self, status: str = "failed") -> tuple[type[Any], ...]:
        """The entry that says that the run does not complete: undone first, if it can be."""
        told = bool(self.plan.on_failure) and status != "cancelled"
        undoable = self.ledger.anything(self._loose())
        return (Compensating,) if told or undoable else (Finished,)

    def _loose(self) -> dict[tuple[str, str], str]:
        return loose(self.places.values(), (RUNNING, PUT_OFF))

    def _lawful_end(self, entry: Finished | Compensating) -> None:
        expected = Finished if entry.status == "completed" else self._ending()
        assert isinstance(entry, expected)
        if entry.code == "step_limit":
            assert self.used >= self.plan.max_steps
            assert entry.status == "failed"
            return
        root = self.places[ROOT].steps
        assert all(step.outcome is not None for step in root.values()), "ended too early"
        won = [root[name].outcome == Outcome.SUCCESS for name in self.plan.exits]
        good = any(won) or not won
        assert entry.status == ("completed" if good else "failed")
        if not good and any(step.outcome in FAILURES for step in root.values()):
            assert root[entry.node].outcome in FAILURES

    def _lawful_cancel(self, entry: Cancelled) -> None:
        place = self.places[entry.scope]
        assert place.steps[entry.node].outcome is None, "cancelled what had ended"
        if self._about is None:
            winners = [
                node.id
                for node in self.plan.nodes.values()
                if node.scope == place.name
                and entry.node in node.cancels
                and place.steps[node.id].outcome is None
                and place.steps[node.id].phase == IDLE
                and (holds(node.when, place.steps) or (place.id, node.id) in self.owed)
            ]
            assert winners, f"{entry} for no join"
            self._about = (place.id, winners[0])

    def _lawful_fire(self, entry: Any) -> None:
        place = self.places[entry.scope]
        node, step = self.plan.nodes[entry.node], place.steps[entry.node]
        assert step.phase == IDLE, f"{node.id} fired twice"
        assert step.outcome is None, f"{node.id} fired after its end"
        assert not self.paused, f"{node.id} fired while the run was paused"
        if (place.id, node.id) in self.owed:
            self.owed.discard((place.id, node.id))
        elif self._about is None or node.id != self._about[1]:
            assert holds(node.when, place.steps) is True, f"{node.id} fired without its needs"
        self._about = None
        for loser in node.cancels:
            assert loser == node.id or place.steps[loser].outcome is not None, "a loser goes on"
        self._within_limit()
        if isinstance(entry, Failed):
            assert entry.code == "evaluation"
            return
        kinds: dict[type[Any], tuple[type[Any], ...]] = {
            Dispatched: (Task,),
            Asked: (Question,),
            Succeeded: (Trigger, Pass, Branch),
            Waiting: (Delay,),
            LoopOpened: (Loop,),
        }
        assert isinstance(node.work, kinds[type(entry)])
        if isinstance(node.work, Branch):
            ports = [port for port, _ in node.work.cases]
            assert entry.port in (*ports, node.work.default)
        if isinstance(node.work, Trigger):
            assert node.id == self.trigger

    def _within_limit(self) -> None:
        assert self.used < self.plan.max_steps, "more steps than the plan allows"

    # --- what an entry means ----------------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        if self.undoing is not None:
            self.undoing.follow(entry)
            if isinstance(entry, Dispatched):
                self.views[entry[:3]] = self.undoing.view(self.ever)
            if isinstance(entry, Finished):
                self.finished = entry
            return
        before = self._loose()
        self._apply_forward(entry)
        if isinstance(entry, Compensating):
            self.ledger.note(entry, before, {})
            self.paused = False
            self.undoing = Undoing(self.plan, entry, self.ledger.groups)
            self.timers.clear()
        else:
            self.ledger.note(entry, before, self._loose())

    def _apply_forward(self, entry: Entry) -> None:
        match entry:
            case Started():
                assert entry.trigger == self.trigger
                self.started = True
            case CancelRequested() | Compensating():
                pass
            case Finished():
                self.finished = entry
                self.timers.clear()
            case IterationFailed():
                self._close(self.places[entry.scope], None, (entry.code, entry.message))
            case Iterated():
                self._iterate(entry)
            case Jumped():
                self._reopen(entry)
            case Skipped():
                self._end(entry.scope, entry.node, Outcome.SKIPPED)
            case Cancelled():
                self._end(entry.scope, entry.node, Outcome.CANCELLED)
            case _:
                self._apply_to(self._step(entry), entry)

    def _apply_to(self, step: Step, entry: Any) -> None:
        scope, node = entry.scope, entry.node
        match entry:
            case Dispatched(attempt=attempt) | Asked(attempt=attempt):
                assert attempt == step.attempt + 1, "attempts are counted one by one"
                self._release(scope, node)
                step.phase, step.attempt = RUNNING, attempt
                self.views[scope, node, attempt] = self._view(self.places[scope])
                if isinstance(entry, Asked):
                    self._limit(scope, node, step)
                self.used += 1
            case Doubted():
                step.doubted = True
            case Retrying() | Parked():
                self._release(scope, node)
                step.doubted = False
                step.phase = PUT_OFF
                step.retries += isinstance(entry, Retrying)
                self._arm("retry", scope, node, step.attempt)
            case Waiting():
                step.phase, step.attempt = DELAYED, step.attempt + 1
                self._arm("delay", scope, node, step.attempt)
                self._limit(scope, node, step)
                self.used += 1
            case LoopOpened(items=items):
                step.phase, step.items, step.attempt = LOOPING, items, step.attempt + 1
                step.opened, step.results, step.broken = 0, {}, {}
                self._limit(scope, node, step)
                self.used += 1
            case Succeeded(port=port, output=output):
                self.used += step.phase == IDLE
                trigger = isinstance(self.plan.nodes[node].work, Trigger)
                step.port, step.output = port, TRIGGER_INPUT if trigger else output
                if step.items is not None:
                    outputs = [step.results[i] for i in range(len(step.items))]
                    failed = len(step.broken)
                    step.output = {"items": outputs, "count": len(outputs), "failed": failed}
                self._end(scope, node, Outcome.SUCCESS)
            case Failed(timed_out=timed_out):
                self.used += step.phase == IDLE
                if not isinstance(self.plan.nodes[node].on_error, Continue):
                    self._doomed = (self.places[scope], entry)
                self._end(scope, node, Outcome.TIMED_OUT if timed_out else Outcome.FAILED)

    def _view(self, place: Place) -> dict[str, Any]:
        """The ended steps around here, and the item of the innermost loop."""
        loop, steps = None, {}
        while True:
            for name, step in place.steps.items():
                if step.outcome in (Outcome.SUCCESS, *FAILURES):
                    steps[name] = {"output": step.output, "outcome": step.outcome}
            if place.above is None:
                return {"loop": loop, "steps": steps}
            scope, node, index = place.above
            place = self.places[scope]
            items = place.steps[node].items
            assert items is not None
            loop = loop or {"item": items[index], "index": index}

    def _arm(self, kind: str, scope: str, node: str, attempt: int) -> None:
        self.timers[f"{kind}\x1f{scope}\x1f{node}\x1f{attempt}"] = (scope, node)

    def _limit(self, scope: str, node: str, step: Step) -> None:
        if self.plan.nodes[node].timeout is not None:
            self._arm("timeout", scope, node, step.attempt)

    def _release(self, scope: str, node: str) -> None:
        """Whatever a node waits for or has open is gone."""
        self.timers = {k: owner for k, owner in self.timers.items() if owner != (scope, node)}
        for place in list(self.places.values()):
            if place.above is not None and place.above[:2] == (scope, node):
                for inner in place.steps:
                    self._release(place.id, inner)
                del self.places[place.id]

    def _iterate(self, entry: Iterated) -> None:
        step = self._step(entry)
        again = f"@{step.visits}" if step.visits else ""
        around = f"{entry.scope}." if entry.scope else ""
        for index in range(entry.first, entry.first + entry.size):
            scope = f"{around}{entry.node}{again}[{index}]"
            assert scope not in self.places
            steps = {name: Step() for name in self._members(entry.node)}
            above = entry.scope, entry.node, index
            assert step.items is not None
            self.places[scope] = Place(scope, entry.node, steps, above, step.items[index])
            self.ever[scope] = self.places[scope]
        step.opened = entry.first + entry.size

    def _reopen(self, entry: Jumped) -> None:
        place = self.places[entry.scope]
        for name in self._follow(place, entry.target):
            self._release(place.id, name)
            old = place.steps[name]
            begun = name == entry.target or old != Step()
            place.steps[name] = Step(attempt=old.attempt, visits=old.visits + begun)
            self.owed.discard((place.id, name))
        if self.paused:
            self.owed.add((place.id, entry.target))
        else:
            self._about = (place.id, entry.target)

    def _follow(self, place: Place, target: str) -> set[str]:
        """A node, and all that follows from it."""
        again, grown = {target}, True
        while grown:
            more = {
                name
                for name in place.steps
                if any(other in again for other in self._waits_for(self.plan.nodes[name].when))
            }
            grown = not more <= again
            again |= more
        return again

    def _waits_for(self, when: When) -> list[str]:
        match when:
            case Ref(node=name):
                return [name]
            case Not(term=term):
                return self._waits_for(term)
            case And(terms=terms) | Or(terms=terms) | Settled(terms=terms) | AtLeast(terms=terms):
                return [name for term in terms for name in self._waits_for(term)]
            case _:
                return []

    def _end(self, scope: str, node: str, outcome: Outcome) -> None:
        place = self.places[scope]
        self._release(scope, node)
        step = place.steps[node]
        step.phase, step.outcome, step.items = IDLE, outcome, None
        step.doubted = False
        ended = all(other.outcome is not None for other in place.steps.values())
        if ended and place.above is not None and self._doomed is None:
            whens = [self.plan.nodes[name].when for name in place.steps]
            awaited = {name for when in whens for name in self._waits_for(when)}
            leaves = {n: s.output for n, s in place.steps.items() if n not in awaited}
            self._close(place, next(iter(leaves.values())) if len(leaves) == 1 else leaves, None)

    def _close(self, place: Place, output: Json, error: tuple[str, str] | None) -> None:
        assert place.above is not None
        scope, node, index = place.above
        for inner in place.steps:
            self._release(place.id, inner)
        del self.places[place.id]
        loop = self.places[scope].steps[node]
        assert index not in loop.results, "an iteration ended twice"
        loop.results[index] = output
        if error is not None:
            loop.broken[index] = error

    def _nothing_left(self) -> None:
        """When no event is at work, everything that can follow has followed."""
        if self.finished is not None or self.paused:
            return
        if self.undoing is not None:
            assert self.undoing.current is not None, "what undoes the run stands still"
            assert self.undoing.out or self.undoing.armed is not None
            return
        self.owed = {(place, name) for place, name in self.owed if place in self.places}
        assert not self.owed, "a jump came to nothing"
        assert self._about is None
        assert self._doomed is None
        assert any(step.outcome is None for step in self.places[ROOT].steps.values()), "no end"
        for place in self.places.values():
            for name, step in place.steps.items():
                node = self.plan.nodes[name]
                if step.phase == IDLE and step.outcome is None:
                    known = holds(node.when, place.steps)
                    assert known is None, f"{name} in {place.id!r} was forgotten"
                if step.phase == LOOPING and isinstance(node.work, Loop):
                    assert step.items is not None
                    full = step.opened - len(step.results) == node.work.parallel
                    busy = len(step.results) < step.opened
                    assert full or (step.opened == len(step.items) and busy), "a loop stands still"
                    assert not (step.broken and node.work.stop_on_error)
