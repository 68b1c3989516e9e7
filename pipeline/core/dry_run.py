"""A run played to its end with nothing outside of it: every effect is answered by a mock.

The core itself decides, so what a dry run shows is what a run would do if the world answered so.
Its clock is made up: what is answered takes no time, and when nothing is left to answer the next
timer is due. Nothing here does I/O, reads a clock or makes a random number.

A dry run is bounded also within one decision, which may dispatch a whole loop: what is beyond the
size is no longer rendered, and a decision that looks at too many nodes, or takes too long, is given
up; what was decided before it is told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from permaflow.plan import Json, Node
from pipeline.core.decide import decide
from pipeline.core.effects import Ask, ClearTimer, Dispatch, SetTimer, StopStep, Withdraw
from pipeline.core.events import AttemptDone, AttemptFailed, Event, TimerFired, Woken
from pipeline.core.program import Program, Renderer
from pipeline.core.state import Run
from pipeline.core.view import History, Step

MOST_STEPS = 10_000
"""Answers and timers, after so many a dry run is broken off."""

MOST_TEXT = 32_000_000
"""Characters of what steps are given and give back, after so many a dry run is broken off: all of
it is kept, and told, however often it says the same.
"""

MOST_LOOKS = 20
"""Nodes that are looked at, for each answer or timer that there may be."""

NOBODY = UUID(int=0)

Place = tuple[str, str]
"""Scope and node."""


@dataclass(frozen=True, slots=True)
class Mock:
    """How an attempt ends: with an output that leaves through `port`, or with a failure."""

    output: Json = None
    port: str | None = None
    code: str | None = None
    message: str = ""
    retryable: bool = False
    timed_out: bool = False


Source = Literal["given", "recorded", "empty"]


@dataclass(frozen=True, slots=True)
class Mocks:
    """The answers of the world. The first of these that knows a step is taken:

    * `given`: node → what its attempts come to, one after the other; the last one stays.
    * `recorded`: scope and node → what came of it in an earlier run.
    * `questions`: kind of a question → what is answered to it as a rule.
    * else an empty output, through no port.
    """

    given: Mapping[str, Sequence[Mock]] = field(default_factory=dict)
    recorded: Mapping[Place, Mock] = field(default_factory=dict)
    questions: Mapping[str, Mock] = field(default_factory=dict)

    def answer(self, effect: Dispatch | Ask, turn: int) -> tuple[Mock, Source]:
        """What an attempt comes to, the `turn`th (from 0) of its node."""
        if row := self.given.get(effect.node):
            return row[min(turn, len(row) - 1)], "given"
        if known := self.recorded.get((effect.scope, effect.node)):
            return known, "recorded"
        if isinstance(effect, Ask) and effect.kind in self.questions:
            return self.questions[effect.kind], "empty"
        return Mock(), "empty"


@dataclass(frozen=True, slots=True)
class DryStep:
    """One node of the path. `config` is what it was given, `mock` where its answer came from, if
    there was one."""

    step: Step
    config: Json = None
    mock: Source | None = None


Broken = Literal["steps", "size", "time"]
"""What there was too much of when a dry run was broken off."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do. `status` is None if it was broken off; `broken_off` says why then."""

    status: str | None
    error: dict[str, Json] | None
    output: Json
    steps: Sequence[DryStep]
    seconds: float
    """How long it would wait, at least: on timers alone."""
    broken_off: Broken | None = None


NOTHING = DryRun(None, None, None, (), 0.0)
"""What an event does that starts no run."""


def dry_run(
    program: Program,
    trigger_input: Json,
    trigger: str,
    mocks: Mocks,
    began: datetime,
    most: int = MOST_STEPS,
    most_text: int = MOST_TEXT,
    is_late: Callable[[], bool] = lambda: False,
) -> DryRun:
    """Play a run that begins at `began` (with its offset from UTC).

    `is_late` says whether it has taken too long; it is asked for every node that is looked at.
    """
    return _World(program, trigger_input, trigger, mocks, began, most_text).play(most, is_late)


class _TooMuch(Exception):
    """A decision is given up."""

    def __init__(self, what: Broken) -> None:
        self.what = what


class _Bounded(Run):
    """A run that asks before it looks at a node."""

    __slots__ = ("ask",)
    ask: Callable[[], None]

    def plan_node(self, name: str) -> Node:
        self.ask()
        return super().plan_node(name)


class _World:
    """What surrounds the run: what is out, which timers are armed, and what time it is."""

    def __init__(
        self,
        program: Program,
        trigger_input: Json,
        trigger: str,
        mocks: Mocks,
        began: datetime,
        most_text: int,
    ) -> None:
        bounded = copy.copy(program)
        bounded.renderers = {name: self._sparing(each) for name, each in program.renderers.items()}
        self.run = _Bounded(NOBODY, bounded, trigger_input, trigger)
        self.mocks = mocks
        self.began = self.now = began
        self.history = History()
        self.out: dict[tuple[str, str, int], Dispatch | Ask] = {}
        self.timers: dict[str, datetime] = {}
        self.turns: dict[str, int] = {}
        self.configs: dict[Place, tuple[Json, Source | None]] = {}
        self.text = 0
        self.most_text = most_text
        self.looks = 0

    def play(self, most: int, is_late: Callable[[], bool]) -> DryRun:
        def ask() -> None:
            self.looks += 1
            if is_late():
                raise _TooMuch("time")
            if self.looks > most * MOST_LOOKS:
                raise _TooMuch("steps")

        self.run.ask = ask
        try:
            broken = self._play(most)
        except _TooMuch as error:
            broken = error.what
        run, ended = self.run, broken is None
        return DryRun(
            run.status if ended else None,
            run.error if ended else None,
            run.output() if ended else None,
            [
                DryStep(step, *self.configs.get(place, (None, None)))
                for place, step in self.history.steps.items()
            ],
            (self.now - self.began).total_seconds(),
            broken,
        )

    def _play(self, most: int) -> Broken | None:
        self._tell(Woken())
        for _ in range(most):
            if self.run.finished:
                return None
            if self.text > self.most_text:
                return "size"
            event = self._next()
            if event is None:
                break
            self._tell(event)
        return None if self.run.finished else "steps"

    def _sparing(self, render: Renderer) -> Renderer:
        """Renders as long as there is room for it."""

        def spare(context: Any) -> Json:
            if self.text > self.most_text:
                return None
            config = render(context)
            self.text += _length(config)
            return config

        return spare

    def _next(self) -> Event | None:
        """An answer to what has been out for longest, or else the timer that is due first."""
        for key, effect in self.out.items():
            turn = self.turns.get(effect.node, 0)
            self.turns[effect.node] = turn + 1
            mock, source = self.mocks.answer(effect, turn)
            self.configs[effect.scope, effect.node] = (effect.config, source)
            self.text += _length(mock.output)
            del self.out[key]
            if mock.code is None and not mock.timed_out:
                return AttemptDone(*key, mock.output, mock.port)
            code = mock.code or "timeout"
            return AttemptFailed(*key, code, mock.message, mock.retryable, mock.timed_out)
        if not self.timers:
            return None
        timer = min(self.timers, key=lambda each: self.timers[each])
        self.now = max(self.now, self.timers.pop(timer))
        return TimerFired(timer)

    def _tell(self, event: Event) -> None:
        decision = decide(self.run, [event])
        if decision.entries:
            self.run.seq += 1
            self.history.add(self.now, decision.entries)
        for effect in decision.effects:
            match effect:
                case Dispatch() | Ask():
                    self.out[effect[:3]] = effect
                    self.configs[effect.scope, effect.node] = (effect.config, None)
                case StopStep() | Withdraw():
                    self.out.pop(effect[:3], None)
                case SetTimer(key=key, delay=delay, until=until):
                    self.timers[key] = _moment(self.now, delay, until)
                case ClearTimer(key=key):
                    self.timers.pop(key, None)


def _length(value: Json) -> int:
    """About how long the value is as text."""
    match value:
        case str():
            return len(value) + 2
        case dict():
            return sum(len(name) + 4 + _length(item) for name, item in value.items())
        case list() | tuple():
            return sum(1 + _length(item) for item in value)
    return 5


def _moment(now: datetime, delay: float | None, until: str | None) -> datetime:
    if until is not None:
        return datetime.fromisoformat(until)
    return now + timedelta(seconds=delay or 0.0)


# --- comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """A step of which two runs tell differently: in `what` (status, port, config, output, error, or
    `missing` where one of the two has no such step)."""

    scope: str
    node: str
    what: tuple[str, ...]
    before: DryStep | None
    after: DryStep | None


def compare(before: DryRun, after: DryRun) -> list[Difference]:
    """The steps that differ, in the order of the later run, then those that it no longer has."""
    old = {(each.step.scope, each.step.node): each for each in before.steps}
    new = {(each.step.scope, each.step.node): each for each in after.steps}
    found: list[Difference] = []
    for place in dict.fromkeys((*new, *old)):
        was, now = old.get(place), new.get(place)
        what = _differs(was, now)
        if what:
            found.append(Difference(*place, what, was, now))
    return found


_LOOKS: tuple[tuple[str, Callable[[DryStep], Any]], ...] = (
    ("status", lambda each: each.step.status),
    ("port", lambda each: each.step.port),
    ("config", lambda each: each.config),
    ("output", lambda each: each.step.output),
    ("error", lambda each: each.step.error),
)


def _differs(was: DryStep | None, now: DryStep | None) -> tuple[str, ...]:
    if was is None or now is None:
        return ("missing",)
    return tuple(name for name, look in _LOOKS if look(was) != look(now))
