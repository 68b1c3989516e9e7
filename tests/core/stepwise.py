"""The reference interpreter for plans in which the order of things decides: it is played along.

`tests.core.reference` asks each node how it ends, whatever the order; it knows no jumps, no losers
and no timeouts, because what becomes of them depends on who was first. This one hears the very
reports that a run heard, the late, the repeated and the invented ones as well, and says by itself
which of them count and what follows, entry by entry. Of the run it takes one thing only: which of
several nodes that may go on at the same moment was taken first.

There is no queue here and no fold: after each report all that is open is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unittest.mock import ANY

from permaflow.errors import EvaluationError
from permaflow.plan import (
    ROOT,
    Branch,
    Delay,
    Goto,
    Json,
    Loop,
    Node,
    OnUnknown,
    Outcome,
    Pass,
    Plan,
    Question,
    Stop,
    Task,
    Trigger,
    mentions,
)
from pipeline.core.effects import Ask, Decision, Dispatch
from pipeline.core.entries import (
    Asked,
    Cancelled,
    CancelRequested,
    Compensating,
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
    Retrying,
    Skipped,
    Started,
    Succeeded,
    Waiting,
    to_row,
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
from tests.core.places import (
    ASKED,
    DELAYED,
    DOUBTED,
    IDLE,
    LOOPING,
    OUT,
    PUT_OFF,
    Place,
    Step,
    fires,
    items_of,
    last_of,
    may_go_on,
    output_of,
    rendered,
    room,
    wait_of,
)
from tests.core.plans import TRIGGER_INPUT
from tests.core.stepwise_undoing import Undoing, Where, is_doubtful
from tests.core.undoing import LOST

ACTS = Dispatched | Asked | Succeeded | Failed | Waiting | LoopOpened | Iterated | Skipped
"""What a node is taken up with."""
Result = AttemptDone | AttemptFailed | AttemptParked


class Stepwise:
    """A run, played along with one of the core. `hear` raises `AssertionError` where they part."""

    def __init__(self, plan: Plan, trigger: str = "t0") -> None:
        self.plan = plan
        triggers = [n.id for n in plan.nodes.values() if isinstance(n.work, Trigger)]
        self.trigger = trigger if trigger in triggers else "".join(triggers[:1])
        self.places: dict[str, Place] = {}
        self.root = self.open(ROOT, ROOT)
        self.changed = {ROOT}
        self.started = False
        self.target: tuple[Place, str] | None = None
        self.end: Finished | None = None
        self.used = 0
        self.doubts: set[Where] = set()
        self.to_undo: list[list[Where]] = []
        """What may have to be undone. What ended at once is a group, which has no order."""
        self.undoing: Undoing | None = None
        self.configs: dict[tuple[str, str, int], Json] = {}
        self.said: Sequence[Entry] = ()
        self.entries: list[Entry] = []

    # --- hearing ----------------------------------------------------------------------------------

    def hear(self, events: Iterable[Event], decision: Decision) -> None:
        """Take in what was reported together, and compare with what the run made of it."""
        self.said, self.entries = decision.entries, []
        for event in events:
            if self.end is not None:
                break
            if self.undoing is None:
                self.report(event)
            else:
                self.undoing.report(event)
            self.go_on()
        mine, said = to_row(self.entries), to_row(decision.entries)
        assert mine == said, f"the reference: {mine}; the run: {said}"
        for effect in decision.effects:
            if isinstance(effect, Dispatch | Ask) and effect[:3] in self.configs:
                asked = isinstance(effect, Ask) and effect.kind == "unknown"
                assert asked or effect.config == self.configs[effect[:3]]

    def output(self) -> Json:
        return output_of(self.root, self.plan.exits or last_of(self.plan, ROOT))

    def report(self, event: Event) -> None:
        match event:
            case Woken():
                if not self.started:
                    self.started = True
                    self.write(Started(self.trigger))
            case CancelAsked(by=by, reason=reason):
                self.write(CancelRequested(by, reason))
                self.finish("cancelled", "cancelled", "")
            case TimerFired(key="run"):
                if self.started and self.plan.timeout is not None:
                    self.finish("timed_out", "run_timeout", "")
            case TimerFired(key=key):
                kind, _, where = key.partition("\x1f")
                scope, name, attempt = where.split("\x1f")
                if self.at(scope, name, int(attempt)) is not None:
                    self.timer(kind, self.places[scope], self.plan.nodes[name])
            case AttemptDone() | AttemptFailed() | AttemptParked():
                step = self.at(*event[:3])
                if step is not None and step.phase in (OUT, ASKED, DOUBTED):
                    self.result(event, self.places[event.scope], step)

    def at(self, scope: str, name: str, attempt: int) -> Step | None:
        """The step, if this is its current attempt."""
        place = self.places.get(scope)
        step = place.steps.get(name) if place is not None else None
        return step if step is not None and step.attempt == attempt else None

    def timer(self, kind: str, place: Place, node: Node) -> None:
        work, phase = node.work, place.steps[node.id].phase
        if (kind, phase) == ("retry", PUT_OFF):
            self.attempt(place, node)
        elif (kind, phase) == ("delay", DELAYED):
            self.succeed(place, node.id, 0)
        elif kind == "timeout" and node.timeout is not None and phase in (ASKED, DELAYED, LOOPING):
            attempt = place.steps[node.id].attempt
            if isinstance(work, Question) and work.timeout_port is not None:
                told = {"timed_out": True} if work.timeout_output is None else work.timeout_output
                self.succeed(place, node.id, attempt, told, work.timeout_port)
            else:
                self.fail(place, node, attempt, "timeout", timed_out=True)

    def result(self, event: Result, place: Place, step: Step) -> None:
        node = self.plan.nodes[event.node]
        if isinstance(event, AttemptFailed):
            self.failure(event, place, node, step)
        elif isinstance(event, AttemptParked):
            step.phase = PUT_OFF
            self.write(Parked(*event))
        else:
            self.log(event)
            self.succeed(place, node.id, event.attempt, event.output, event.port)

    def failure(self, event: AttemptFailed, place: Place, node: Node, step: Step) -> None:
        lost = event.timed_out or event.code in LOST
        again = event.retryable and step.retries < node.retry.max_retries
        in_doubt = {event[:2]} if is_doubtful(node) else set()
        if step.phase == DOUBTED and event.code == "resolved":
            again = event.retryable
        elif step.phase == DOUBTED and lost:
            return
        elif lost and node.on_unknown is OnUnknown.ASK:
            self.log(event)
            step.phase = DOUBTED
            self.doubts |= in_doubt
            self.write(Doubted(*event[:4], ANY))
            return
        elif lost and node.on_unknown is OnUnknown.FAIL:
            again = False
        self.log(event)
        if again:
            step.phase = PUT_OFF
            step.retries += 1
            if lost:
                self.doubts |= in_doubt
            self.write(Retrying(*event[:3], ANY, event.code, ANY, event.timed_out))
        else:
            self.fail(place, node, event.attempt, event.code, timed_out=event.timed_out)

    # --- going on ---------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Until nothing more follows."""
        while self.end is None and self.undoing is None:
            if self.target is not None:
                (place, name), self.target = self.target, None
                self.fire(place, self.plan.nodes[name])
            elif ready := self.ready():
                self.take_up(*self.first(ready))
            else:
                if self.started and all(s.outcome is not None for s in self.root.steps.values()):
                    self.complete()
                break
        if self.end is None and self.undoing is not None:
            self.undoing.go_on()

    def ready(self) -> list[tuple[Place, Node]]:
        """All nodes that may go on now."""
        found: list[tuple[Place, Node]] = []
        if not self.started:
            return found
        for scope in sorted(self.changed):
            place = self.places.get(scope)
            here = [] if place is None else list(self.ready_in(place))
            found += here
            if not here:
                self.changed.discard(scope)
        return found

    def ready_in(self, place: Place) -> Iterable[tuple[Place, Node]]:
        for name in place.steps:
            if may_go_on(place, self.plan.nodes[name]):
                yield place, self.plan.nodes[name]

    def first(self, ready: list[tuple[Place, Node]]) -> tuple[Place, Node]:
        """The one that the run took up first."""
        rest = self.said[len(self.entries) :]
        losers = [entry for entry in rest if isinstance(entry, Cancelled)]
        for entry in rest:
            if isinstance(entry, ACTS):
                chosen = [one for one in ready if (one[0].id, one[1].id) == entry[:2]]
                return (chosen or ready)[0]
            if isinstance(entry, Finished | Compensating):  # it had no step left for it
                idle = [(place, node) for place, node in ready if fires(place, node)]
                chosen = [one for one in idle if one[1].id == entry.node]
                scopes = [one for one in chosen if losers and one[0].id == losers[0].scope]
                return (scopes or chosen or ready)[0]
        return ready[0]

    def take_up(self, place: Place, node: Node) -> None:
        step = place.steps[node.id]
        if step.phase == LOOPING:
            self.continue_loop(place, node, step)
        elif fires(place, node):
            self.fire(place, node)
        else:
            self.write(Skipped(place.id, node.id))
            self.ended(place, node.id, Outcome.SKIPPED)

    def fire(self, place: Place, node: Node) -> None:
        step = place.steps[node.id]
        if isinstance(node.work, Trigger) and node.id != self.trigger:
            self.write(Skipped(place.id, node.id))
            self.ended(place, node.id, Outcome.SKIPPED)
            return
        step.begun = True
        for loser in node.cancels:
            if place.steps[loser].outcome is None:
                self.write(Cancelled(place.id, loser))
                self.drop([(place, loser)])
                self.ended(place, loser, Outcome.CANCELLED)
        if self.used >= self.plan.max_steps:
            self.finish("failed", "step_limit", node.id)
            return
        try:
            self.work(place, node, step)
        except EvaluationError:
            self.fail(place, node, step.attempt, "evaluation")

    def work(self, place: Place, node: Node, step: Step) -> None:
        match node.work:
            case Task() | Question():
                self.attempt(place, node)
            case Trigger():
                self.succeed(place, node.id, 0)
            case Pass(output=value):
                self.succeed(place, node.id, 0, None if value is None else value.evaluate(place))
            case Branch(cases=cases, default=port):
                for name, test in cases:
                    if test.evaluate(place):
                        port = name
                        break
                self.succeed(place, node.id, 0, {"branch": port}, port)
            case Delay() as delay:
                seconds, moment = wait_of(delay, place)
                step.phase, step.attempt = DELAYED, step.attempt + 1
                self.used += 1
                self.write(Waiting(place.id, node.id, seconds, moment))
            case Loop() as loop:
                step.items = items_of(loop, place)
                step.phase, step.attempt = LOOPING, step.attempt + 1
                self.used += 1
                self.changed.add(place.id)
                self.write(LoopOpened(place.id, node.id, step.items))

    def attempt(self, place: Place, node: Node) -> None:
        """The first attempt, or one more."""
        step = place.steps[node.id]
        if self.used >= self.plan.max_steps:
            self.finish("failed", "step_limit", node.id)
            return
        assert isinstance(node.work, Task | Question)
        config = rendered(node.work.config, place)
        step.attempt += 1
        self.used += 1
        self.configs[place.id, node.id, step.attempt] = config
        if isinstance(node.work, Question):
            step.phase = ASKED
            self.write(Asked(place.id, node.id, step.attempt, node.work.kind))
        else:
            step.phase = OUT
            self.write(Dispatched(place.id, node.id, step.attempt))

    def continue_loop(self, place: Place, node: Node, step: Step) -> None:
        loop = node.work
        assert isinstance(loop, Loop)
        if step.broken and loop.stop_on_error:
            self.fail(place, node, step.attempt, step.broken[-1])
        elif len(step.closed) == len(step.items):
            outputs = [step.closed[index] for index in range(len(step.items))]
            told = {"items": outputs, "count": len(outputs), "failed": len(step.broken)}
            self.succeed(place, node.id, 0, told)
        else:
            first, count = step.opened, room(step, node)
            self.write(Iterated(place.id, node.id, first, count))
            step.opened += count
            around = f"{place.id}." if place.id else ""
            again = f"@{step.visits}" if step.visits else ""
            for index in range(first, first + count):
                inner = self.open(f"{around}{node.id}{again}[{index}]", node.id)
                inner.above, inner.index, inner.error = place, index, place.error
                inner.loop = {"item": step.items[index], "index": index}

    # --- ends -------------------------------------------------------------------------------------

    def succeed(
        self, place: Place, name: str, attempt: int, output: Json = None, port: str | None = None
    ) -> None:
        step, node = place.steps[name], self.plan.nodes[name]
        derived = isinstance(node.work, Trigger | Loop)
        self.write(Succeeded(place.id, name, attempt, None if derived else output, port))
        self.used += step.phase == IDLE
        step.output, step.port = output, port
        if isinstance(node.work, Trigger):
            step.output = TRIGGER_INPUT
        self.doubts.discard((place.id, name))
        if node.compensation is not None:
            self.to_undo.append([(place.id, name)])
        self.ended(place, name, Outcome.SUCCESS)

    def fail(
        self, place: Place, node: Node, attempt: int, code: str, *, timed_out: bool = False
    ) -> None:
        step, where = place.steps[node.id], (place.id, node.id)
        self.write(Failed(*where, attempt, code, ANY, timed_out))
        self.used += step.phase == IDLE
        fields = ("node", "code", "message", "attempt", "details")
        place.error = step.error = dict(
            zip(fields, (node.id, code, ANY, attempt, None), strict=True)
        )
        lost = where in self.doubts or timed_out or code in LOST
        self.doubts.discard(where)
        step.phase = IDLE if step.phase == OUT else step.phase  # it has come back
        self.drop([(place, node.id)], also=[where] if lost and is_doubtful(node) else [])
        step.phase = IDLE
        step.outcome = Outcome.TIMED_OUT if timed_out else Outcome.FAILED
        match node.on_error:
            case Stop():
                self.stop(place, node, code)
            case Goto(node=target):
                if place.steps[target].visits >= self.plan.nodes[target].max_visits:
                    self.stop(place, node, "visit_limit")
                else:
                    self.changed.add(place.id)
                    self.jump(place, node, target)
            case _:
                self.ended(place, node.id, step.outcome)

    def stop(self, place: Place, node: Node, code: str) -> None:
        """The place does not survive the failure of a node."""
        if place.above is None:
            self.finish("failed", code, node.id)
            return
        self.write(IterationFailed(place.id, code, ANY))
        self.drop([(place, name) for name in place.steps])
        place.above.steps[place.name].broken.append(code)
        self.close(place, None)

    def jump(self, place: Place, node: Node, target: str) -> None:
        """`target` and all that follows from it is open again."""
        again, size = {target}, 0
        while size < len(again):
            size = len(again)
            again |= {
                name for name in place.steps if again & {*mentions(self.plan.nodes[name].when)}
            }
        again = {name for name in again if name == target or place.steps[name].begun}
        dropped = sorted(name for name in again if place.steps[name].phase != IDLE)
        self.write(Jumped(place.id, node.id, target, dropped))
        self.drop([(place, name) for name in again])
        for name in again:
            old = place.steps[name]
            place.steps[name] = Step(attempt=old.attempt, visits=old.visits + 1, begun=True)
        self.target = place, target

    def ended(self, place: Place, name: str, outcome: Outcome) -> None:
        step = place.steps[name]
        step.phase, step.outcome, step.begun = IDLE, outcome, True
        self.changed.add(place.id)
        if place.above is not None and all(s.outcome is not None for s in place.steps.values()):
            self.close(place, output_of(place, last_of(self.plan, place.name)))

    def close(self, place: Place, output: Json) -> None:
        assert place.above is not None
        del self.places[place.id]
        place.above.steps[place.name].closed[place.index] = output
        self.changed.add(place.above.id)

    def drop(self, those: Iterable[tuple[Place, str]], also: Iterable[Where] = ()) -> None:
        """These nodes are no longer at anything; what is left of their attempts ended at once."""
        group = list(also)
        left = list(those)
        while left:
            place, name = left.pop()
            step, where = place.steps[name], (place.id, name)
            was_out = step.phase == OUT and is_doubtful(self.plan.nodes[name])
            if was_out or where in self.doubts:
                group.append(where)
            self.doubts.discard(where)
            if step.phase == LOOPING:
                inside = [p for p in self.places.values() if p.above is place and p.name == name]
                left += [(inner, each) for inner in inside for each in inner.steps]
                for inner in inside:
                    del self.places[inner.id]
            step.phase = IDLE
        if group:
            self.to_undo.append(group)

    def complete(self) -> None:
        """Every node has ended."""
        exits = [self.root.steps[name].outcome for name in self.plan.exits]
        good = not exits or Outcome.SUCCESS in exits
        # Some failure is told of; which one is not promised.
        self.finish(*(("completed", "", "") if good else ("failed", ANY, ANY)))

    def finish(self, status: str, code: str, node: str) -> None:
        told = bool(self.plan.on_failure) and status != "cancelled"
        everything = [(p, name) for p in self.places.values() for name in p.steps]
        self.drop(one for one in everything if one[0].id in self.places)
        if status != "completed" and (told or self.to_undo):
            cause = Compensating(status, code, ANY, node)
            self.write(cause)
            self.undoing = Undoing(self, cause)
        else:
            self.end = Finished(status, code, ANY if code else "", node)
            self.write(self.end)

    # --- small things -----------------------------------------------------------------------------

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)

    def log(self, event: AttemptDone | AttemptFailed) -> None:
        if event.log:
            self.write(Logged(*event[:3], event.log))

    def open(self, scope: str, name: str) -> Place:
        steps = {node.id: Step() for node in self.plan.nodes.values() if node.scope == name}
        place = self.places[scope] = Place(scope, name, steps)
        if scope != ROOT:
            self.changed.add(scope)
        return place
