"""The world around a run: it carries out effects, reports events, and forgets nothing.

A `World` holds what a bus, a store and runners would hold, and checks after each decision that
they and the state of the run are of one mind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from permaflow.plan import Json, Plan
from pipeline.core.decide import decide
from pipeline.core.dispatching import outstanding
from pipeline.core.effects import (
    Ask,
    ClearTimer,
    Decision,
    Dispatch,
    Effect,
    SetTimer,
    StopStep,
    Withdraw,
)
from pipeline.core.entries import (
    Asked,
    Dispatched,
    Entry,
    Finished,
    Paused,
    Reopened,
    Resumed,
    from_row,
    to_row,
)
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    AttemptParked,
    Event,
    TimerFired,
    Woken,
)
from pipeline.core.fold import fold
from pipeline.core.program import Program
from pipeline.core.replay import replay
from pipeline.core.state import Run
from tests.core.auditor import Auditor
from tests.core.dump import dump
from tests.core.plans import TRIGGER_INPUT, Broke, Done, Put, Table, output_of


def resolution(key: Key) -> Event:
    """What people say became of an attempt of which nobody knew."""
    match key[2] % 3:
        case 0:
            return AttemptDone(*key, output_of(*key))
        case choice:
            return AttemptFailed(*key, "resolved", f"{key}", retryable=choice == 1)


RUN_ID = UUID("01890000-0000-7000-8000-000000000001")
Key = tuple[str, str, int]


class World:
    """One run with all that is around it. `audited` checks every entry as it comes."""

    def __init__(
        self, plan: Plan, table: Table | None = None, trigger: str = "t0", *, audited: bool = True
    ) -> None:
        self.plan = plan
        self.table = table or Table()
        self.program = Program(plan)
        self.run = Run(RUN_ID, self.program, TRIGGER_INPUT, trigger)
        self.trigger = trigger
        self.auditor = Auditor(plan, trigger) if audited else None
        self.rows: list[str] = []
        self.entries: list[Entry] = []
        self.effects: list[Effect] = []
        self.events: list[Event] = []
        self.sent: dict[Key, Dispatch] = {}
        self.live: dict[Key, Dispatch] = {}
        self.asked: dict[Key, Ask] = {}
        self.put: dict[Key, Ask] = {}
        """All questions that ever were."""
        self.stopped: list[Key] = []
        self.armed: dict[str, SetTimer] = {}

    # --- telling ----------------------------------------------------------------------------------

    def tell(self, *events: Event, chance: float = 0.5) -> Decision:
        """Report events together, as one turn, and carry out what follows."""
        decision = decide(self.run, events, chance)
        if self.auditor is not None and len(events) == 1:
            self.auditor.follow(events[0], decision.entries)
        if decision.entries:
            self.rows.append(json.dumps(to_row(decision.entries)))
            self.run.seq += 1
        self.events += events
        self.entries += decision.entries
        for event in events:
            if isinstance(event, AttemptDone | AttemptFailed | AttemptParked):
                self.live.pop(event[:3], None)
        self.carry_out(decision.effects)
        if self.auditor is not None:
            self._check_views(decision.effects)
        return decision

    def append(self, *entries: Entry) -> None:
        """Somebody else adds a row: who holds a run, lets it go on, or opens it again."""
        fold(self.run, entries)
        self.rows.append(json.dumps(to_row(entries)))
        self.run.seq += 1
        self.run.settle_status()
        self.entries += entries
        if self.auditor is not None:
            self.auditor.note(entries)

    def pause(self) -> None:
        self.append(Paused("ann"))

    def resume(self) -> None:
        self.append(Resumed("ann"))
        self.tell(Woken())

    def retry(self, table: Table | None = None) -> None:
        """Open the run again; from now on attempts end as `table` says."""
        self.table = table or self.table
        self.auditor = None  # it follows a run to its end, and no further
        self.append(Reopened("ann"))
        self.tell(Woken())

    def _check_views(self, effects: Iterable[Effect]) -> None:
        """Each config was rendered from what its step could see, and nothing else."""
        assert self.auditor is not None
        for effect in effects:
            if isinstance(effect, Dispatch | Ask) and "seen" in effect.config:
                seen, view = effect.config["seen"], self.auditor.views[effect[:3]]
                assert seen["loop"] == view["loop"]
                for name, step in seen["steps"].items():
                    known = view["steps"].get(name)
                    assert (step is None) == (known is None)
                    if step is not None:
                        assert (step["output"], step["outcome"]) == tuple(known.values())

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            match effect:
                case Dispatch():
                    key = effect[:3]
                    assert key not in self.sent, f"{key} was dispatched twice"
                    self.sent[key] = self.live[key] = effect
                case Ask():
                    key = effect[:3]
                    assert key not in self.asked, f"{key} was asked twice"
                    self.put[key] = self.asked[key] = effect
                case Withdraw():
                    self.asked.pop(effect[:3], None)
                case StopStep():
                    self.live.pop(effect[:3], None)
                    self.stopped.append(effect[:3])
                case SetTimer():
                    assert effect.key not in self.armed, f"{effect.key} was armed twice"
                    self.armed[effect.key] = effect
                case ClearTimer():
                    self.armed.pop(effect.key, None)

    # --- checking ---------------------------------------------------------------------------------

    def check(self) -> None:
        """What the world holds is what the run believes, and the journal tells the same."""
        run = self.run
        assert self.live.keys() == {(*where, n) for where, n in run.outstanding.items()}
        assert self.asked.keys() == {(*where, n) for where, n in run.questions.items()}
        assert self.armed.keys() == run.timers.keys()
        if run.finished:
            assert not self.live, "a step goes on after the end"
            assert not self.asked, "a question is open after the end"
            assert not self.armed, "a timer is armed after the end"
        if self.auditor is not None:
            self.auditor.compare(run)
        again = self.replayed()
        assert dump(again) == dump(run)
        for known in (again, run):
            asked = {effect[:3]: effect for effect in outstanding(known)}
            assert asked == self.live

    def replayed(self) -> Run:
        """The run as another process would build it from the journal."""
        run = Run(RUN_ID, self.program, TRIGGER_INPUT, self.trigger)
        return replay(run, [(n, from_row(json.loads(row))) for n, row in enumerate(self.rows, 1)])

    def restart(self) -> None:
        """The process dies; another one takes the run over."""
        self.run = self.replayed()

    # --- playing ----------------------------------------------------------------------------------

    def answer(self, key: Key) -> Event:
        """How an attempt ends."""
        if key in self.asked and self.asked[key].kind == "unknown":
            return resolution(key)
        log = [f"{key[1]} was tried"] if key[2] % 2 == 0 else []
        match self.table(*key):
            case Done(port=port):
                return AttemptDone(*key, output_of(*key), port, None, log)
            case Broke(retryable=retryable, timed_out=timed_out, after=after):
                code = "timeout" if timed_out else "broke"
                return AttemptFailed(*key, code, f"{key}", retryable, timed_out, after, None, log)
            case Put(after=after):
                return AttemptParked(*key, after)

    def next_events(self, *, slow: bool = False) -> list[Event]:
        """What may happen next: an answer to each live attempt, and each armed timer.

        Timeouts are among them in a slow world only.
        """
        armed = [] if self.run.paused else self.armed
        timers = [key for key in armed if slow or not key.startswith(("run", "timeout"))]
        out = [*self.live, *self.asked]
        return [self.answer(key) for key in out] + [TimerFired(key) for key in timers]

    def play(self, schedule: Sequence[int] = (), **options: Any) -> Run:
        """Begin the run and go on to its end, in the order that the schedule picks."""
        self.tell(Woken())
        return self.play_on(schedule, **options)

    def play_on(
        self,
        schedule: Sequence[int] = (),
        *,
        limit: int = 4_000,
        check: bool = False,
        slow: bool = False,
    ) -> Run:
        for turn in range(limit):
            if check:
                self.check()
            if self.run.finished:
                return self.run
            choices = self.next_events(slow=slow)
            assert choices, "the run is stuck: nothing is out, nothing is asked, no timer is armed"
            pick = schedule[turn] if turn < len(schedule) else 0
            self.tell(choices[pick % len(choices)])
        raise AssertionError(f"the run did not end within {limit} events")

    # --- looking ----------------------------------------------------------------------------------

    @property
    def attempts(self) -> set[Key]:
        return {entry[:3] for entry in self.entries if isinstance(entry, Dispatched | Asked)}

    def outcomes(self, scope: str = "") -> dict[str, str | None]:
        """How each node of an open scope ended."""
        nodes = self.run.scopes[scope].nodes
        return {name: s.outcome.value for name, s in nodes.items() if s.outcome is not None}

    def ends(self) -> list[Finished]:
        return [entry for entry in self.entries if isinstance(entry, Finished)]

    def of(self, kind: type[Any]) -> list[Any]:
        """The entries of one kind."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    def output(self) -> Json:
        return self.run.output()
