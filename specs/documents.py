"""What the dialects share: steps as read, and the checks between steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from permaflow.plan import (
    NO_RETRY,
    ROOT,
    STOP,
    Compensation,
    Compiled,
    Goto,
    Json,
    Loop,
    Node,
    OnError,
    OnUnknown,
    Pass,
    Question,
    Retry,
    TaskTypes,
    TriggerSpec,
    When,
    Work,
)
from specs import waits
from specs.expressions import NAMES, Names
from specs.json_limits import shape_problems
from specs.ordering import cycles
from specs.paths import Path
from specs.reading import Fields, Report, kind_of, shown
from specs.triggers import KINDS, read_trigger
from specs.work import known_types, ports_of, read_work, unknown_type

MAX_LOOP_NESTING = 8

NO_STEPS: Mapping[str, Step] = {}

_ID = re.compile(r"[^\x00-\x1f\x7f/#\[\]{}\"'\\]{1,128}")

_VISIT = re.compile(r"@\d+")
"""What the engine puts behind the name of a loop that a goto has opened again."""

Place = Callable[[str], str]
"""From a pointer within a step's config to the pointer within the document."""


@dataclass(slots=True)
class Step:
    """One node or block, as read; its `when` comes from the edges or `depends`."""

    id: str
    type: str
    index: int
    fields: Fields
    work: Work = field(default_factory=Pass)
    parent: str | None = None
    scope: str = ROOT
    on_error: OnError = STOP
    retry: Retry = NO_RETRY
    timeout: timedelta | None = None
    max_visits: int = 100
    compensation: Compensation | None = None
    on_unknown: OnUnknown = OnUnknown.RETRY
    ports: tuple[str, ...] = ()
    trigger: TriggerSpec | None = None
    targeted: bool = False
    """Whether an edge names it as its target, be it a sound one or not."""
    paths: list[tuple[Path, str]] = field(default_factory=list)

    def ways(self) -> tuple[str, ...]:
        """The ports that it may end through, as far as the document tells."""
        return ports_of(self.work) or self.ports

    def problem(self, name: str, code: str, message: str) -> None:
        self.fields.problem(name, code, message)

    def see(self, path: Path, pointer: str) -> None:
        """Remembers what the step looks at; `pointer` is within the document."""
        self.paths.append((path, pointer))

    def node(self, when: When, cancels: tuple[str, ...] = ()) -> Node:
        return Node(
            id=self.id,
            type=self.type,
            work=self.work,
            when=when,
            scope=self.scope,
            retry=self.retry,
            timeout=self.timeout,
            on_error=self.on_error,
            cancels=cancels,
            max_visits=self.max_visits,
            compensation=self.compensation,
            on_unknown=self.on_unknown,
        )


def read_document(document: Json, compile_sound: Callable[[Fields], Compiled]) -> Compiled:
    """What a dialect makes of a document, if that is an object of a size and depth to be read."""
    report = Report()
    shape_problems(document, report)
    if not report.problems:
        if type(document) is dict:
            return compile_sound(Fields(document, "", report))
        report.add("", "wrong_type", f"A workflow is an object, not {kind_of(document)}.")
    return Compiled(None, problems=report.finish())


def read_id(fields: Fields, name: str) -> str | None:
    """The name of a step, which others refer to by it."""
    value = fields.text(name, required=True)
    if value is not None and (not _ID.fullmatch(value) or value != value.strip()):
        fields.problem(
            name,
            "bad_id",
            f"{shown(value)} cannot name a step: up to 128 characters, without spaces at the "
            "ends and without / # [ ] { } quotes and backslashes.",
        )
        return None
    if value is not None and _VISIT.fullmatch(value[value.rfind("@") :]):
        fields.problem(
            name,
            "bad_id",
            f"{shown(value)} cannot name a step: a name does not end in `@` and a number, because "
            "the later visits of a step are called so.",
        )
        return None
    return value


@dataclass(slots=True)
class Reader:
    """Reads the work of steps against the task types of this installation."""

    types: TaskTypes
    report: Report
    names: Names = NAMES
    known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.known = known_types(self.types)

    def fill(self, step: Step, config: Json, place: Place, type_at: str) -> None:
        """Reads work and trigger into `step`. Unknown types keep `Pass`, and are reported."""
        if step.type not in self.known:
            self.report.add(
                type_at, "unknown_type", unknown_type(step.type, self.known, self.report)
            )
            return
        if type(config) is not dict:
            self.report.add(
                place(""),
                "wrong_type",
                f"The config must be an object, but it is {kind_of(config)}.",
            )
            return
        found = Report()
        mentions = step.paths

        def look(path: Path, pointer: str) -> None:
            mentions.append((path, place(pointer)))

        step.work = read_work(step.type, config, found, look, self.types, self.names)
        if step.type in KINDS:
            step.trigger = read_trigger(step.type, step.id, config, "", found)
        if isinstance(step.work, Question) and step.work.kind == waits.KIND:
            step.timeout = waits.timeout_of(Fields(config, "", found))
        for problem in found.problems:
            self.report.add(place(problem.pointer), problem.code, problem.message, problem.at)
        self.report.left_out += found.left_out


# --- between steps ------------------------------------------------------------------------------


def place_in_loops(steps: Mapping[str, Step], name: str, key: str) -> None:
    """Sets the scope of every step from its parent. `key` is the field that names the parent."""
    for step in steps.values():
        if step.parent is None:
            continue
        loop = steps.get(step.parent)
        if loop is None:
            step.problem(
                key,
                "unknown_step",
                f"There is no {name} {shown(step.parent)}; "
                f"{step.fields.report.guess(step.parent, steps)}"
                f"`{key}` names the loop whose body this {name} belongs to.",
            )
        elif not isinstance(loop.work, Loop) and loop.type != "logic_loop":
            step.problem(
                key, "bad_parent", f"{shown(loop.id)} is no loop; only a loop can hold other steps."
            )
        elif step.trigger is not None:
            step.problem(key, "bad_parent", "A trigger cannot stand in the body of a loop.")
        else:
            step.scope = loop.id
    rings = cycles({s.id: (s.scope,) if s.scope in steps else () for s in steps.values()})
    for ring in rings:
        steps[ring[0]].problem(key, "cycle", f"Loops hold each other: {round_trip(ring)}.")
        for each in ring:
            steps[each].scope = ROOT
    for step in steps.values():
        scope, depth = step.scope, 0
        while scope != ROOT and depth <= MAX_LOOP_NESTING:
            scope, depth = steps[scope].scope, depth + 1
        if depth > MAX_LOOP_NESTING:
            step.problem(key, "too_deep", f"Loops may nest {MAX_LOOP_NESTING} levels deep.")
            step.scope = ROOT


def scopes_around(step: Step, steps: Mapping[str, Step]) -> list[str]:
    """The scopes that a step can see, its own first, the root last."""
    scopes = [step.scope]
    while scopes[-1] != ROOT:
        scopes.append(steps[scopes[-1]].scope)
    return scopes


def check_between(steps: Mapping[str, Step], handlers: Mapping[str, Step] = NO_STEPS) -> None:
    """Checks what steps say of each other: jumps, templates, and loops without a body.

    `handlers` are the steps of `on_failure`, which see all that stands in no loop.
    """
    held = {step.scope for step in steps.values()}
    for step in steps.values():
        if isinstance(step.on_error, Goto):
            _check_goto(step, step.on_error, steps)
        if isinstance(step.work, Loop) and step.id not in held:
            step.problem(
                "", "empty_loop", f"The loop {shown(step.id)} has no body; put steps into it."
            )
        if step.paths:
            visible = scopes_around(step, steps)
            for path, pointer in step.paths:
                _check_path(step, path, pointer, steps, visible)
    for handler in handlers.values():
        for path, pointer in handler.paths:
            _check_path(handler, path, pointer, {**steps, **handlers}, (ROOT,))


def _check_goto(step: Step, goto: Goto, steps: Mapping[str, Step]) -> None:
    target = steps.get(goto.node)
    if target is None:
        message = (
            f"There is no step {shown(goto.node)} to go to; "
            f"{step.fields.report.guess(goto.node, steps)}"
            "name a step of this workflow."
        )
        step.problem("on_error", "unknown_step", message)
    elif target.trigger is not None:
        step.problem("on_error", "bad_goto", "A trigger cannot be gone to; name a step after it.")
    elif target.scope != step.scope:
        step.problem(
            "on_error",
            "bad_goto",
            f"{shown(goto.node)} is not in the same loop body; "
            "a jump cannot enter or leave a loop.",
        )


def _check_path(
    step: Step, path: Path, pointer: str, steps: Mapping[str, Step], visible: Collection[str]
) -> None:
    report = step.fields.report
    if path.segments[0] == "loop" and step.scope == ROOT:
        message = f"`{path.text}` has a value only in the body of a loop."
        report.add(pointer, "not_in_loop", message)
    if path.segments[0] != "steps" or len(path.segments) < 2:
        return
    name = path.segments[1]
    other = steps.get(name)
    if other is None:
        report.add(
            pointer,
            "unknown_step",
            f"`{path.text}` speaks of the step {shown(name)}, which does not exist; "
            f"{report.guess(name, steps)}name a step of this workflow.",
        )
    elif other.scope not in visible:
        report.add(
            pointer,
            "not_visible",
            f"`{path.text}` speaks of a step inside the loop {shown(other.scope)}; outside of it "
            f"there is only `steps.{other.scope}.output`.",
        )


def jumps_of(steps: Mapping[str, Step]) -> dict[str, str]:
    """Step → the step that its failure goes to, where there is one."""
    return {
        step.id: step.on_error.node
        for step in steps.values()
        if isinstance(step.on_error, Goto) and step.on_error.node in steps
    }


def round_trip(ring: list[str]) -> str:
    """A cycle in words; of a long one, the ends."""
    names = [*ring, ring[0]]
    if len(names) > 12:
        names = [*names[:6], "…", *names[-5:]]
    return " → ".join(names)
