"""What each block of a dag waits for, and whether it can ever be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from permaflow.plan import (
    FAILURES,
    ROOT,
    STOP,
    Always,
    Never,
    Outcome,
    When,
    mentions,
)
from specs.approval_ports import narrow, ports_in, settle
from specs.depends import DependsFault, parse_depends
from specs.documents import Step, jumps_of, round_trip
from specs.json_limits import MAX_EDGES
from specs.ordering import cycles, reverse, starts
from specs.reading import Report, shown
from specs.satisfiable import Ending, Search
from specs.work import may_fail


@dataclass(slots=True)
class Dependencies:
    """`steps` have their scopes already. `entry` is None if the entrypoint is not known."""

    steps: Mapping[str, Step]
    entry: str | None
    report: Report
    whens: dict[str, When] = field(default_factory=dict)

    def connect(self) -> dict[str, When]:
        """The `when` of every block; of use only without problems."""
        bare: list[Step] = []
        for step in self.steps.values():
            text = step.fields.text("depends")
            if text is not None and text.strip():
                self.whens[step.id] = self._parse(step, text)
            else:
                self.whens[step.id] = Always()
                bare.append(step)
        sound = self._check_names()
        self._start(bare, sound)
        self._check_cycles(sound)
        settle(self.steps, ports_in(self.whens.values()))
        self._check_satisfiable(sound)
        return self.whens

    def _parse(self, step: Step, text: str) -> When:
        if step.id == self.entry:
            step.problem(
                "depends",
                "bad_entrypoint",
                f"{shown(step.id)} is the entrypoint, which depends on nothing; remove `depends`.",
            )
        elif step.type == "meta_error":
            step.problem(
                "depends",
                "bad_depends",
                f"An error handler is reached by `on_error: goto:{step.id}`; remove `depends`.",
            )
        try:
            return narrow(parse_depends(text, self._ports), self.steps)
        except DependsFault as fault:
            step.problem("depends", "bad_depends", str(fault))
            return Always()

    def _ports(self, name: str) -> tuple[str, ...]:
        return self.steps[name].ways() if name in self.steps else ()

    def _start(self, bare: list[Step], sound: dict[str, When]) -> None:
        """Decides which of the blocks that depend on nothing start; the others wait for a jump."""
        back = {name: mentions(sound[name]) if name in sound else () for name in self.steps}
        jumps = jumps_of(self.steps)

        def may_start(name: str) -> bool:
            step = self.steps[name]
            return name == self.entry or (step.scope != ROOT and step.type != "meta_error")

        entries, reached = starts(reverse(back), back, jumps, may_start)
        targets = set(jumps.values())
        for step in bare:
            if step.id in entries or step.id == self.entry:
                continue
            self.whens[step.id] = sound[step.id] = Never()
            if step.type == "meta_error" and step.id not in targets:
                step.problem(
                    "",
                    "unreachable",
                    f"Nothing leads to the error handler {shown(step.id)}; name it in the "
                    f"`on_error: goto:{step.id}` of a block, or remove it.",
                )
            elif step.id not in reached and step.id not in targets and self.entry is not None:
                step.problem(
                    "",
                    "unreachable",
                    f"{shown(step.id)} depends on nothing and is not the entrypoint, so it would "
                    "never run; give it `depends`, or remove it.",
                )

    def _check_names(self) -> dict[str, When]:
        """The `depends` that speak only of blocks around them."""
        sound: dict[str, When] = {}
        total = 0
        for step in self.steps.values():
            names = mentions(self.whens[step.id])
            total += len(names)
            faults = [fault for name in names if (fault := self._fault(step, name)) is not None]
            for code, message in faults:
                step.problem("depends", code, message)
            if not faults:
                sound[step.id] = self.whens[step.id]
        if total > MAX_EDGES:
            message = f"A dag may have {MAX_EDGES:,} dependencies."
            self.report.add("/dag/tasks", "too_large", message)
            return {}
        return sound

    def _fault(self, step: Step, name: str) -> tuple[str, str] | None:
        """Code and message, if `step` cannot depend on `name`."""
        other = self.steps.get(name)
        if other is None:
            message = f"There is no block {shown(name)}; {self.report.guess(name, self.steps)}"
            return "unknown_step", f"{message}name a block of this dag."
        if other.scope != step.scope:
            return "crosses_loop", (
                f"{shown(name)} is not in the same loop body as {shown(step.id)}; depend on the "
                "loop instead, from outside, or on blocks of the body, from inside."
            )
        return None

    def _check_cycles(self, sound: Mapping[str, When]) -> None:
        graph = {name: mentions(sound[name]) if name in sound else () for name in self.steps}
        for ring in cycles(graph):
            # The graph leads from a block to what it waits for; people read it the other way.
            forward = [ring[0], *reversed(ring[1:])]
            self.steps[ring[0]].problem(
                "depends",
                "cycle",
                f"These blocks wait for each other: {round_trip(forward)}. Let one of them depend "
                "on something else; to repeat blocks, use a loop or `on_error: goto:<name>`.",
            )

    def _check_satisfiable(self, sound: Mapping[str, When]) -> None:
        endings = {name: self._endings(step) for name, step in self.steps.items()}
        search = Search(endings.__getitem__)
        for name, when in sound.items():
            if not isinstance(when, Never) and not search.may_hold(when):
                self.steps[name].problem(
                    "depends",
                    "never_satisfied",
                    f"This can never be true, so {shown(name)} would always be skipped; "
                    "check the operators and the statuses.",
                )

    def _endings(self, step: Step) -> list[Ending]:
        ports: tuple[str | None, ...] = step.ways() or (None,)
        endings: list[Ending] = [(Outcome.SUCCESS, port) for port in ports]
        endings.append((Outcome.CANCELLED, None))
        if not isinstance(self.whens[step.id], Always):
            endings.append((Outcome.SKIPPED, None))
        if may_fail(step.work) and step.on_error is not STOP:
            endings.extend((outcome, None) for outcome in sorted(FAILURES))
        return endings
