"""Events played by a version of a workflow, and by the active one, to see what differs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Literal
from uuid import UUID

from permaflow.errors import InputError
from permaflow.plan import Json, TriggerSpec
from permaflow.values import escape
from pipeline.core.dry_run import (
    MOST_STEPS,
    MOST_TEXT,
    NOTHING,
    DryRun,
    Mock,
    Mocks,
    Place,
    compare,
    dry_run,
)
from pipeline.core.program import Program
from pipeline.gateway.dry_run_views import DryEventView, MockBody, difference_view, step_view
from pipeline.gateway.entering import Entry, Triggers
from pipeline.gateway.run_starts import as_trigger

QUESTIONS: Mapping[str, Mock] = {
    "approval": Mock({"decision": "approved"}, "approved"),
    "change": Mock({"event": "found", "record": {}, "before": None}, "met"),
    "child": Mock({}),
}
"""What is answered to a question of each kind, as a rule."""


STRETCH, BREATH = 0.002, 0.0002
"""Seconds that a thread works without a pause, and that it pauses."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a workflow, or a document that may become one."""

    program: Program
    triggers: Sequence[TriggerSpec]


@dataclass(frozen=True, slots=True)
class Happening:
    """An event to play: its data, and the trigger that it came through.

    One that was recorded has started the run `run_id`, came from `source`, and may have what its
    steps came to; `whole` tells whether that is all of it.
    """

    data: Json
    trigger: str = ""
    run_id: UUID | None = None
    source: str = ""
    recorded: Mapping[Place, Mock] | None = None
    whole: bool = True


def by_hand(specs: Sequence[TriggerSpec], data: Json, trigger: str) -> Happening:
    """The event of somebody who starts the workflow with this data. Raises `InputError`."""
    names = [spec.node for spec in specs]
    if trigger and trigger not in names:
        raise _unknown("trigger", trigger, names, "/trigger")
    chosen = next((spec for spec in specs if spec.node == trigger), specs[0] if specs else None)
    return Happening(as_trigger(chosen, data), trigger)


def play(
    version: Version,
    active: Version | None,
    happenings: Sequence[Happening],
    mocks: Mapping[str, MockBody | list[MockBody]],
    until: float | None = None,
) -> list[DryEventView]:
    """Play every event, no longer than `until` (of `time.monotonic`). Of several each is broken off
    the sooner. Raises `InputError` for a mock of a step that there is not.
    """
    names = {*version.program.nodes, *(() if active is None else active.program.nodes)}
    for name in mocks:
        if name not in names:
            raise _unknown("step", name, names, f"/mocks/{escape(name)}")
    given = {
        node: [each.mock() for each in (row if isinstance(row, list) else [row])]
        for node, row in mocks.items()
    }
    player = _Player(given, len(happenings) or 1, until)
    this, other = _Side(version), None if active is None else _Side(active)
    return [player.play(this, other, happening) for happening in happenings]


def _unknown(what: str, name: str, names: Collection[str], pointer: str) -> InputError:
    near = get_close_matches(name, names, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"There is no {what} {name!r}{meant}", pointer=pointer)


class _Side:
    """A version, ready to take events."""

    def __init__(self, version: Version) -> None:
        self.program = version.program
        self._triggers = Triggers(version.triggers)

    def enter(self, happening: Happening, taken: frozenset[str] = frozenset()) -> Entry:
        """A sample that somebody gives goes in as it is; what was recorded finds its way."""
        if happening.run_id is None:
            return Entry(happening.trigger)
        return self._triggers.enter(happening.source, happening.trigger, happening.data, taken)


class _Player:
    def __init__(
        self, given: Mapping[str, Sequence[Mock]], events: int, until: float | None
    ) -> None:
        self._given = given
        self._most = min(MOST_STEPS, max(1_000, 4 * MOST_STEPS // events))
        self._most_text = MOST_TEXT // events
        self._began = datetime.now(UTC)
        self._until = until
        self._breathed = 0.0

    def play(self, this: _Side, other: _Side | None, happening: Happening) -> DryEventView:
        before = None if other is None else other.enter(happening)
        taken = frozenset() if before is None else before.fired - {happening.trigger}
        entry = this.enter(happening, taken)
        now = self._run(this, entry, happening)
        was = None if other is None or before is None else self._run(other, before, happening)
        return DryEventView(
            run_id=happening.run_id,
            source=happening.source or None,
            trigger=None if entry.why_not else entry.trigger,
            trigger_data=happening.data,
            starts=not entry.why_not,
            why_not=entry.why_not or None,
            status=now.status,
            broken_off=now.broken_off,
            error=now.error,
            output=now.output,
            seconds=now.seconds,
            recording=_recording(happening),
            steps=[step_view(this.program, each, self._began) for each in now.steps],
            active_starts=None if before is None else not before.why_not,
            active_why_not=None if before is None else before.why_not or None,
            active_status=None if was is None else was.status,
            active_broken_off=None if was is None else was.broken_off,
            differences=[]
            if was is None or other is None
            else [
                difference_view(this.program, other.program, each, self._began)
                for each in compare(was, now)
            ],
        )

    def _run(self, side: _Side, entry: Entry, happening: Happening) -> DryRun:
        if entry.why_not:
            return NOTHING
        world = Mocks(self._given, happening.recorded or {}, QUESTIONS)
        return dry_run(
            side.program,
            happening.data,
            entry.trigger,
            world,
            self._began,
            self._most,
            self._most_text,
            self._is_late,
        )

    def _is_late(self) -> bool:
        if self._until is None:
            return False
        now = time.monotonic()
        if now > self._breathed + STRETCH:
            # Whoever shares the interpreter with this thread gets a turn at once.
            time.sleep(BREATH)
            self._breathed = now
        return now > self._until


def _recording(happening: Happening) -> Literal["whole", "part"] | None:
    if happening.recorded is None:
        return None
    return "whole" if happening.whole else "part"
