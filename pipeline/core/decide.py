"""`decide`: what has to happen next in a run, given what has just been reported.

Rules of this file:

* Pure: no I/O, no clock, no random number. Chance comes in as a number in [0, 1).
* Total: an event that is late, repeated, or about something that is gone changes nothing.
* Every change goes through `fold`: an entry is applied as it is written, and never otherwise.
* A node is dispatched at most once for each attempt; only a result of the current attempt counts.
* Effects are what the shell does after the entries are committed. They can be asked for again at
  any time (see `dispatching`), so losing them costs time and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from permaflow.errors import EvaluationError
from permaflow.plan import (
    ROOT,
    Branch,
    Delay,
    Goto,
    Loop,
    Node,
    Pass,
    Question,
    Stop,
    Task,
    Trigger,
)
from pipeline.core.compensating import calls_for_it, end_of
from pipeline.core.delays import bounded, read_delay, spread, wait_before
from pipeline.core.dispatching import dispatch_of, without_dropped
from pipeline.core.effects import (
    Ask,
    ClearTimer,
    Decision,
    Effect,
    SetTimer,
    Withdraw,
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
from pipeline.core.fold import FOLDS
from pipeline.core.frontier import Agenda, ending, is_due, limit_of, unarmed, under_way
from pipeline.core.loops import next_iterations, read_items
from pipeline.core.staleness import awaited, is_over, is_past
from pipeline.core.state import (
    LOOPING,
    NodeState,
    Run,
    Scope,
    run_timer,
    timer_key,
)
from pipeline.core.truth import truth
from pipeline.core.unknown import KIND as UNKNOWN
from pipeline.core.unknown import Judgement, judge, question_of


def decide(run: Run, events: Iterable[Event], chance: float = 0.5) -> Decision:
    """Apply `events` to `run` (which changes) and say what to append and what to do.

    The run must be thrown away if the entries cannot be appended.
    """
    return _Turn(run, chance).take(events)


class _Turn(Agenda):
    """One call of `decide`: the entries and effects so far, and the nodes still to look at."""

    def __init__(self, run: Run, chance: float) -> None:
        self.run = run
        self.queue, self.loops = deque(), deque()
        self.chance = chance
        self.retries = 0
        self.entries: list[Entry] = []
        self.effects: list[Effect] = []
        self.stale = 0
        self.unknown = 0

    def take(self, events: Iterable[Event]) -> Decision:
        run = self.run
        if run.halted and not run.paused:
            self._go_on()
        for event in events:
            if run.finished:
                self.stale += 1
                if isinstance(event, TimerFired):
                    self.effects.append(ClearTimer(event.key))
                elif isinstance(event, AttemptDone | AttemptFailed):
                    self._forget_answer(event)
                continue
            self._hear(event)
            self._settle()
        effects = self.effects
        if run.dropped_timers or run.dropped_steps or run.dropped_questions:
            effects = without_dropped(run, effects)
        run.settle_status()
        return Decision(self.entries, effects, self.stale, self.unknown)

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)
        FOLDS[type(entry)](self.run, entry)

    # --- events -----------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        match event:
            case AttemptDone():
                if state := self._current(event):
                    self._log(event)
                    self._succeed(event.scope, event.node, state, event)
            case AttemptFailed():
                if state := self._current(event):
                    self._attempt_failed(event, state)
            case AttemptParked():
                if state := self._current(event):
                    key = timer_key("retry", event.scope, event.node, state.attempt)
                    after = bounded(event.after)
                    self.write(Parked(*event[:3], after, event.reason))
                    self.effects.append(SetTimer(key, after))
            case TimerFired(key=key):
                self._timer(key)
            case CancelAsked() if self.run.cause is not None:
                self.stale += 1  # it is ending
            case CancelAsked(reopened=reopened) if reopened < self.run.reopened:
                self.stale += 1
            case CancelAsked():
                self.write(CancelRequested(event.by, event.reason))
                self._end(Finished("cancelled", "cancelled", event.reason))
            case Woken():
                if not (self.run.started or self.run.paused):
                    self._start()

    def _current(self, event: AttemptDone | AttemptFailed | AttemptParked) -> NodeState | None:
        """The node that waits for this very attempt; None when the event is late or early."""
        state = awaited(self.run, event)
        if state is not None:
            return state
        if is_past(self.run, event.scope, event.node, event.attempt):
            self.stale += 1
            self._forget_answer(event)
        else:
            self.unknown += 1
        return None

    def _forget_answer(self, event: AttemptDone | AttemptFailed | AttemptParked) -> None:
        """An answer that came too late, or once more, is not kept for another time."""
        node = self.run.program.nodes.get(event.node)
        if node is not None and (kind := question_of(node)) is not None:
            self.effects.append(Withdraw(*event[:3], kind, answered=True))

    def _log(self, event: AttemptDone | AttemptFailed) -> None:
        if event.log:
            self.write(Logged(event.scope, event.node, event.attempt, event.log))

    def _succeed(self, scope: str, node: str, state: NodeState, event: AttemptDone) -> None:
        self.write(Succeeded(scope, node, event.attempt, event.output, event.port, event.ref))
        self._ended(self.run.scopes.get(scope), node)

    def _attempt_failed(self, event: AttemptFailed, state: NodeState) -> None:
        node = self.run.plan_node(event.node)
        key = timer_key("retry", event.scope, event.node, state.attempt)
        judgement = judge(event, state, node)
        if judgement is Judgement.LATE:
            self.stale += 1
            return
        self._log(event)
        match judgement:
            case Judgement.ASK:
                self.write(Doubted(*event[:3], event.code, event.message))
                told = {"code": event.code, "message": event.message}
                self.effects.append(Ask(*event[:3], UNKNOWN, told))
            case Judgement.RETRY:
                delay = wait_before(node.retry, state, event, spread(self.chance, self.retries))
                self.retries += 1
                self.write(Retrying(*event[:3], delay, event.code, event.message, event.timed_out))
                self.effects.append(SetTimer(key, delay))
            case _:
                scope, late = self.run.scopes[event.scope], event.timed_out
                self._fail(scope, node, *event[2:5], timed_out=late, details=event.details)

    def _timer(self, key: str) -> None:
        timer = self.run.timers.get(key)
        if timer is None and is_over(self.run, key):
            self.stale += 1
            self.effects.append(ClearTimer(key))
        elif timer is None:
            # Either long gone, or set by somebody else since this state was loaded: the shell
            # makes sure of the former before it clears the timer.
            self.unknown += 1
            self.effects.append(ClearTimer(key))
        elif self.run.paused:  # it stays armed, and is held
            self.stale += 1
        elif timer.kind == "run":
            self._end(Finished("timed_out", "run_timeout", "The run took longer than it may."))
        elif timer.kind == "delay":
            self._pass(self.run.scopes[timer.scope], timer.node)
        elif timer.kind == "timeout":
            self._time_out(self.run.scopes[timer.scope], self.run.plan_node(timer.node))
        else:
            node = self.run.plan_node(timer.node)
            if self._within_limit(node):
                self._attempt(self.run.scopes[timer.scope], node)

    def _time_out(self, scope: Scope, node: Node) -> None:
        attempt = scope.nodes[node.id].attempt
        work, dropped = node.work, self.run.dropped_questions
        first = len(dropped)
        if isinstance(work, Question) and work.timeout_port is not None:
            output = {"timed_out": True} if work.timeout_output is None else work.timeout_output
            self.write(Succeeded(scope.id, node.id, attempt, output, work.timeout_port))
            self._ended(self.run.scopes.get(scope.id), node.id)
        else:
            message = f"`{node.id}` took longer than its timeout."
            self._fail(scope, node, attempt, "timeout", message, timed_out=True)
        if isinstance(work, Question):
            # Nobody answered: an answer that is there after all counts before this does.
            dropped[first] = dropped[first]._replace(answered=False)

    # --- the start, and what follows from an ended node -------------------------------------------

    def _start(self) -> None:
        run, triggers = self.run, self.run.program.triggers
        self.write(Started(run.trigger if run.trigger in triggers else "".join(triggers[:1])))
        if run.program.plan.timeout is not None:
            self.effects.append(SetTimer(run_timer(run), run.program.plan.timeout.total_seconds()))
        if run.root.nodes:  # what a rerun keeps has ended already
            self.look_around(run.program.plan, [run.root])
        else:
            self._open(run.root)

    def _go_on(self) -> None:
        """Find out what is to happen next in a run that was held, has ended, or has a new plan."""
        run = self.run
        self.effects.extend(unarmed(run))
        due = self.look_around(run.program.plan, run.scopes.values())
        self.write(Continued())
        if not run.started:
            self._start()
        for scope, name, visits in due:
            if is_due(run, scope, name, visits):
                self._fire(scope, run.plan_node(name))
                self._reach_target()
        self._settle()

    def _open(self, scope: Scope) -> None:
        for name in self.run.program.entries[scope.name]:
            self.queue.append((scope, name))

    def _ended(self, scope: Scope | None, name: str) -> None:
        """Look at what waits for a node that has ended, if its scope is still open."""
        if scope is not None:
            for follower in self.run.program.followers[name]:
                self.queue.append((scope, follower))

    def _settle(self) -> None:
        """Go on until nothing more follows; then the run may be over."""
        run = self.run
        while not run.finished and not run.paused:
            if self.target is not None:
                self._reach_target()
            elif self.queue:
                self._look(*self.queue.popleft())
            elif self.loops:
                self._continue_loop(*self.loops.popleft())
            elif run.touched:
                self.loops.extend(dict.fromkeys(run.touched))
                run.touched.clear()
            elif run.cause is not None:
                if not self._repair():
                    break
            else:
                if run.started and run.root.open == 0:
                    self._end(ending(run))
                if run.cause is None:
                    break
        else:
            self.clear()
            run.touched.clear()

    def _reach_target(self) -> None:
        while (target := self.target) is not None and not self.run.finished:
            self.target = None
            self._fire(target[0], self.run.plan_node(target[1]))

    def _look(self, scope: Scope, name: str) -> None:
        """Fire or skip a node whose `when` has become known."""
        if self.run.scopes.get(scope.id) is not scope:
            return
        state = scope.nodes.get(name)
        if state is not None and (state.outcome is not None or state.phase is not None):
            return
        node = self.run.plan_node(name)
        verdict = truth(node.when, scope.nodes)
        if verdict:
            self._fire(scope, node)
        elif verdict is False:
            self.write(Skipped(scope.id, name))
            self._ended(scope, name)

    # --- the end of a run that does not complete --------------------------------------------------

    def _end(self, end: Finished) -> None:
        """If the run does not complete, what it did is undone first, where it can be."""
        begins = end.status != "completed" and self.run.cause is None
        if begins and calls_for_it(self.run, end.status):
            self.write(Compensating(*end[:4]))
            self.clear()
        else:
            self.write(end)

    def _repair(self) -> bool:
        """Begin what is to be done next about it. False if that is under way."""
        run = self.run
        if run.repair is None:
            self.write(end_of(run))
            return True
        scope, name = run.repair
        if scope.nodes[name].phase is not None:
            return False
        self._attempt(scope, run.plan_node(name))
        return True

    # --- firing -----------------------------------------------------------------------------------

    def _fire(self, scope: Scope, node: Node) -> None:
        if isinstance(node.work, Trigger) and node.id != self.run.trigger:
            self.write(Skipped(scope.id, node.id))
            self._ended(scope, node.id)
            return
        for loser in node.cancels:
            if scope.node(loser).outcome is None:
                self.write(Cancelled(scope.id, loser))
                self._ended(scope, loser)
        if not self._within_limit(node):
            return
        try:
            self._work(scope, node)
        except EvaluationError as error:
            self._fail(scope, node, scope.node(node.id).attempt, error.code, str(error))

    def _within_limit(self, node: Node) -> bool:
        limit = self.run.program.plan.max_steps
        if self.run.steps_used < limit or self.run.cause is not None:
            return True
        message = f"The run used up its {limit} steps."
        self._end(Finished("failed", "step_limit", message, node.id))
        return False

    def _work(self, scope: Scope, node: Node) -> None:
        match node.work:
            case Task() | Question():
                self._attempt(scope, node)
            case Trigger() | Pass(output=None):
                self._pass(scope, node.id)
            case Pass(output=value) if value:
                self._pass(scope, node.id, value.evaluate(scope.context))
            case Branch(cases=cases, default=default):
                port = next((p for p, test in cases if test.evaluate(scope.context)), default)
                self.write(Succeeded(scope.id, node.id, 0, {"branch": port}, port))
                self._ended(scope, node.id)
            case Delay() as delay:
                self._delay(scope, node, delay)
            case Loop() as loop:
                items = read_items(loop, scope.context)
                self.write(LoopOpened(scope.id, node.id, items))
                self.effects.extend(limit_of(scope, node))
                self.run.touched.append((scope, node.id))

    def _pass(self, scope: Scope, name: str, output: object = None) -> None:
        self.write(Succeeded(scope.id, name, 0, output))
        self._ended(self.run.scopes.get(scope.id), name)

    def _delay(self, scope: Scope, node: Node, delay: Delay) -> None:
        duration, until = read_delay(delay, node.id, scope.context)
        self.write(Waiting(scope.id, node.id, duration, until))
        key = timer_key("delay", scope.id, node.id, scope.node(node.id).attempt)
        self.effects.append(SetTimer(key, duration, until))
        self.effects.extend(limit_of(scope, node))

    def _attempt(self, scope: Scope, node: Node) -> None:
        """Dispatch the next attempt of a task, or put its question once more.

        A config without a value fails it for good.
        """
        state = scope.node(node.id)
        attempt = state.attempt + 1
        try:
            config = self.run.program.renderers[node.id](scope.context)
        except EvaluationError as error:
            self._fail(scope, node, state.attempt, error.code, str(error))
            return
        if isinstance(node.work, Question):
            self.write(Asked(scope.id, node.id, attempt, node.work.kind))
            self.effects.append(Ask(scope.id, node.id, attempt, node.work.kind, config))
            self.effects.extend(limit_of(scope, node))
            return
        self.write(Dispatched(scope.id, node.id, attempt))
        state.config = config
        self.effects.append(dispatch_of(scope.id, node, state, attempt))

    # --- failures ---------------------------------------------------------------------------------

    def _fail(
        self,
        scope: Scope,
        node: Node,
        attempt: int,
        code: str,
        message: str,
        *,
        timed_out: bool = False,
        details: object = None,
    ) -> None:
        self.write(Failed(scope.id, node.id, attempt, code, message, timed_out, details))
        match node.on_error:
            case Stop():
                self._stop(scope, node.id, code, message)
            case Goto(node=target):
                self._jump(scope, node, target)
            case _:
                self._ended(self.run.scopes.get(scope.id), node.id)

    def _stop(self, scope: Scope, name: str, code: str, message: str) -> None:
        """A failure that its scope does not survive."""
        if scope.id == ROOT:
            self._end(Finished("failed", code, message, name))
        else:
            self.write(IterationFailed(scope.id, code, message))

    def _jump(self, scope: Scope, node: Node, target: str) -> None:
        limit = self.run.plan_node(target).max_visits
        if scope.node(target).visits >= limit:
            message = f"`{node.id}` went to `{target}` {limit} times, which is the limit."
            self._stop(scope, node.id, "visit_limit", message)
            return
        self._ended(scope, node.id)
        self.write(Jumped(scope.id, node.id, target, under_way(self.run, scope, target)))
        if not self.run.paused:
            self.target = (scope, target)
        self.queue.extend((scope, name) for name in self.run.program.descendants(target)[1:])

    # --- loops ------------------------------------------------------------------------------------

    def _continue_loop(self, scope: Scope, name: str) -> None:
        """Open the next iterations of a loop, or end it."""
        if self.run.scopes.get(scope.id) is not scope:
            return
        state = scope.nodes[name]
        loop = state.loop
        node = self.run.plan_node(name)
        if loop is None or state.phase is not LOOPING or not isinstance(node.work, Loop):
            return
        if loop.error is not None and node.work.stop_on_error:
            code, message = loop.error
            self._fail(scope, node, scope.nodes[name].attempt, code, message)
            return
        if loop.done == len(loop.items):
            self.write(Succeeded(scope.id, name, 0))
            self._ended(self.run.scopes.get(scope.id), name)
            return
        first, count = next_iterations(loop, node.work.parallel)
        if count:
            self.write(Iterated(scope.id, name, first, count))
            for index in range(first, first + count):
                self._open(loop.open[index])
