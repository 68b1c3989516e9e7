"""Steps one after the other: what each waits for, and what a failure does.

`Stop`: a failure fails the run. `Continue`: the next step goes ahead. `Fallback`: the rest is
skipped and the fallback steps run, if there are any; without them it is `Stop`. A step that its
`when` or `flag` keeps from running is skipped, and the next goes ahead.

A step may bring nodes of its own that run before it (`before`): looking its flag up, the gate that
decides, taking a turn. The last `when` of the chain is the step itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from permaflow.plan import (
    ANY_RESULT,
    CONTINUE,
    FAILURES,
    NO_RETRY,
    STOP,
    TAKEN,
    Always,
    Branch,
    Context,
    Expression,
    Goto,
    Json,
    Never,
    Node,
    OnError,
    Or,
    Ref,
    Retry,
    Task,
    When,
    Work,
)
from specs.documents import Step
from specs.paths import Path

STOPS, CONTINUES, FALLS_BACK = "Stop", "Continue", "Fallback"
HANDLING = (STOPS, CONTINUES, FALLS_BACK)
OWN_RETRY = Retry(max_retries=3)
"""Of what a step looks up before it runs, if it has no policy of its own."""

FLAGS = "FeatureFlag"
"""The object whose records are flags: on if `enabled` is true, whatever else they hold."""


@dataclass(frozen=True, slots=True)
class Before:
    """A node that a step brings along. A gate leads on through its port `true`."""

    id: str
    type: str
    work: Work

    @property
    def is_gate(self) -> bool:
        return isinstance(self.work, Branch)


@dataclass(slots=True)
class Link:
    """A step of the chain; `handling` says what its failure does."""

    step: Step
    handling: str
    before: list[Before] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FlagOn:
    """Whether the record of a flag is there and says so."""

    path: Path

    def evaluate(self, context: Context) -> bool:
        return self.path.look(context) is True


@dataclass(frozen=True, slots=True)
class Both:
    flag: Expression
    test: Expression

    def evaluate(self, context: Context) -> bool:
        return bool(self.flag.evaluate(context)) and bool(self.test.evaluate(context))


def flag_lookup(step_id: str, flag: Json, stage: str) -> tuple[Before, FlagOn]:
    """The node that looks a flag up, and the test of what it finds."""
    name = f"{step_id}:flag"
    config = {"operation": "get", "object": FLAGS, "id": flag}
    path = Path(("steps", name, "output", "record", "data", "enabled"), f"the flag of {step_id}")
    return Before(name, "action_record", Task(stage, config)), FlagOn(path)


TURN = "action_turn"


def turn_of(step_id: str) -> str:
    """The expression that stands for whose turn it is."""
    return f'steps["{step_id}:turn"].output.chosen'


def take_turn(step_id: str, rotation: str, among: Json, stage: str) -> Before:
    """The node that finds out whose turn it is; `among` is a list, or the name of an object."""
    key = "among" if type(among) is list else "object"
    config = {"rotation": f"{rotation}: {step_id}", key: among}
    return Before(f"{step_id}:turn", TURN, Task(stage, config))


def gate(step_id: str, test: Expression) -> Before:
    return Before(f"{step_id}:when", "logic_condition", Branch((("true", test),), "false"))


def connect(chain: Sequence[Link], fallback: Sequence[Link]) -> dict[str, Node]:
    """The nodes of the plan, in their order."""
    target = _first_node(fallback[0]) if fallback else None
    nodes: dict[str, Node] = {}
    when: When = Always()
    for link in chain:
        when = _add(link, when, _on_error(link.handling, target), nodes)
    when = Never()
    for link in fallback:
        when = _add(link, when, _on_error(link.handling, None), nodes)
    return nodes


def _first_node(link: Link) -> str:
    return link.before[0].id if link.before else link.step.id


def _on_error(handling: str, target: str | None) -> OnError:
    if handling == CONTINUES:
        return CONTINUE
    return Goto(target) if handling == FALLS_BACK and target is not None else STOP


def _add(link: Link, when: When, on_error: OnError, nodes: dict[str, Node]) -> When:
    """Adds the nodes of a step; gives what the next step waits for."""
    goes_on = on_error == CONTINUE
    passed: list[Ref] = []
    for each in link.before:
        nodes[each.id] = Node(
            each.id,
            each.type,
            each.work,
            when,
            retry=OWN_RETRY if link.step.retry == NO_RETRY else link.step.retry,
            on_error=on_error,
        )
        when = Ref(each.id, TAKEN, "true" if each.is_gate else None)
        if each.is_gate:
            passed.append(Ref(each.id, TAKEN, "false"))
        if goes_on:
            passed.append(Ref(each.id, FAILURES))
    link.step.on_error = on_error
    nodes[link.step.id] = link.step.node(when)
    ends = Ref(link.step.id, ANY_RESULT if goes_on else TAKEN)
    return Or((ends, *passed)) if passed else ends
