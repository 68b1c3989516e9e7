"""What a picture of a workflow shows: boxes, arrows between them, and loops as boxes of boxes.

Made of the plan, so every dialect is drawn alike. Triggers that are no nodes (of dags and steps)
are drawn as boxes with an arrow to what starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from permaflow.plan import (
    ANY_RESULT,
    FAILURES,
    ROOT,
    TAKEN,
    Always,
    And,
    AtLeast,
    Branch,
    Delay,
    Goto,
    Loop,
    Node,
    Not,
    Or,
    Pass,
    Plan,
    Question,
    Ref,
    Settled,
    Trigger,
    TriggerSpec,
    When,
)

LONGEST_LABEL = 48


@dataclass(frozen=True, slots=True)
class Box:
    """`shape` is trigger, task, branch, wait, route or loop, which holds the boxes of its scope."""

    id: str
    label: str
    type: str
    shape: str
    scope: str = ROOT


@dataclass(frozen=True, slots=True)
class Arrow:
    """`back` marks a jump (`goto`), which does not count for what stands above what."""

    source: str
    target: str
    label: str = ""
    back: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def within(self, scope: str) -> list[Box]:
        return [box for box in self.boxes if box.scope == scope]


def draw(plan: Plan, triggers: Sequence[TriggerSpec] = ()) -> Drawing:
    """The picture of a workflow."""
    boxes = [Box(n.id, _short(n.id), n.type, _shape(n), n.scope) for n in plan.nodes.values()]
    arrows: dict[tuple[str, str, str], Arrow] = {}
    apart = [spec for spec in triggers if spec.node not in plan.nodes]
    first = [
        name
        for name in plan.members[ROOT]
        if isinstance(plan.nodes[name].when, Always)
        and not isinstance(plan.nodes[name].work, Trigger)
    ]
    for spec in apart:
        boxes.insert(0, Box(spec.node, _short(_said(spec)), f"trigger_{spec.kind}", "trigger"))
        for name in first:
            arrows[spec.node, name, ""] = Arrow(spec.node, name)
    for node in plan.nodes.values():
        for ref, negated in _refs(node.when):
            label = _label(ref, plan.nodes[ref.node], negated)
            arrows[ref.node, node.id, label] = Arrow(ref.node, node.id, label)
        if isinstance(node.on_error, Goto):
            target = node.on_error.node
            arrows[node.id, target, "goto"] = Arrow(node.id, target, "on error", back=True)
    return Drawing(tuple(boxes), tuple(arrows.values()))


def _shape(node: Node) -> str:
    match node.work:
        case Trigger():
            return "trigger"
        case Branch():
            return "branch"
        case Delay() | Question():
            return "wait"
        case Loop():
            return "loop"
        case Pass():
            return "route"
        case _:
            return "task"


def _refs(when: When) -> Iterator[tuple[Ref, bool]]:
    """The references of a `when`, and whether each counts turned around."""
    stack: list[tuple[When, bool]] = [(when, False)]
    while stack:
        term, negated = stack.pop()
        match term:
            case Ref():
                yield term, negated
            case Not(term=inner):
                stack.append((inner, not negated))
            case And(terms=terms) | Or(terms=terms) | Settled(terms=terms):
                stack.extend((each, negated) for each in reversed(terms))
            case AtLeast(terms=terms):
                stack.extend((each, negated) for each in reversed(terms))
            case _:
                pass


def _label(ref: Ref, source: Node, negated: bool) -> str:
    """What an arrow says: nothing where it is taken on success."""
    if ref.port is not None:
        said = ref.port
    elif ref.outcomes == TAKEN:
        said = "success" if negated else ""
    elif ref.outcomes == FAILURES:
        said = "error"
    elif ref.outcomes == ANY_RESULT:
        said = "done" if negated else ""
    else:
        said = ", ".join(sorted(outcome.lower() for outcome in ref.outcomes))
    return _short(f"not {said}" if negated else said)


def _said(spec: TriggerSpec) -> str:
    if spec.kind != "record":
        return spec.node
    return f"{spec.object} {' or '.join(sorted(spec.events))}"


def _short(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
