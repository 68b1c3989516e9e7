"""Whether a run can go on by another version of its workflow, and if not, why.

It can when nothing that has happened in it would have happened otherwise: every node that has begun
is the same in both versions, and every node that is new or changed is still ahead. To be sure, the
journal is folded by both plans, and has to come to the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

from permaflow.plan import Loop, Node, Outcome, Plan
from pipeline.core.program import Program
from pipeline.core.state import NodeState, Run

LATE = frozenset({"retry", "timeout", "on_unknown"})
"""What no longer matters of a node that has ended."""

WORDS = {
    "when": "what it waits for",
    "work": "what it does",
    "on_error": "what follows its failure",
    "max_visits": "how often it may be gone back to",
    "cancels": "what it cancels",
    "on_unknown": "what becomes of an attempt that is lost",
}
"""Field of a node → how people call it."""


class Difference(NamedTuple):
    """A node that keeps a run from going over to another version, and a sentence that says why."""

    node: str
    reason: str


def differences(run: Run, after: Run | None, new: Program) -> list[Difference]:
    """Why a run cannot go on by `new`; empty if it can.

    `after` is the same journal folded by `new`, None if that cannot be done.
    """
    old = run.program.plan
    begun = dict(_begun(run))
    found = [*_of_begun(begun, old, new.plan), *_of_others(begun, old, new)]
    if not found and (after is None or _states(after, begun) != _states(run, begun)):
        found.append(Difference("", "What has happened in it does not come to the same."))
    return found


def is_timed(old: Program, new: Program) -> bool:
    """Whether the time that a run may take begins when it goes over to `new`."""
    return old.plan.timeout is None and new.plan.timeout is not None


def _begun(run: Run) -> Iterator[tuple[str, str]]:
    """The nodes that have begun, with a word for how far they are; of a loop all of its body."""
    plan = run.program.plan
    for scope in run.scopes.values():
        for name, state in scope.nodes.items():
            if state.phase is not None:
                yield name, "is under way"
            elif state.outcome is Outcome.SKIPPED:
                yield name, "was skipped"
            elif state.outcome is not None or state.attempt:
                yield name, "has ended"
            else:
                continue
            if isinstance(plan.nodes[name].work, Loop) and state.attempt:
                for inner in _body(plan, name):
                    yield inner, f"is in the loop `{name}`, which has begun"


def _body(plan: Plan, loop: str) -> Iterator[str]:
    for name in plan.members.get(loop, ()):
        yield name
        yield from _body(plan, name)


def _of_begun(begun: dict[str, str], old: Plan, new: Plan) -> Iterator[Difference]:
    for name, far in begun.items():
        node = new.nodes.get(name)
        if node is None:
            yield Difference(name, f"`{name}` {far}, and is not there any more.")
            continue
        changed = set(_changes(old.nodes[name], node))
        if far == "has ended":
            changed -= LATE
        elif far == "was skipped":
            changed &= {"when", "scope"}
        if changed:
            words = ", ".join(sorted(WORDS.get(field, f"its {field}") for field in changed))
            yield Difference(name, f"`{name}` {far}, and is changed: {words}.")


def _of_others(begun: dict[str, str], old: Plan, new: Program) -> Iterator[Difference]:
    """What is new or changed must not come before anything that has begun."""
    for name, node in new.plan.nodes.items():
        before = old.nodes.get(name)
        if name in begun or (before is not None and not any(_changes(before, node))):
            continue
        word = "new" if before is None else "changed"
        later = next((n for n in new.descendants(name)[1:] if n in begun), None)
        if later is not None:
            reason = f"`{name}` is {word}, and `{later}`, which follows it, {begun[later]}."
            yield Difference(name, reason)
        elif node.scope in begun and isinstance(new.plan.nodes[node.scope].work, Loop):
            reason = f"`{name}` is {word}, and is in the loop `{node.scope}`, which has begun."
            yield Difference(name, reason)


def _changes(before: Node, now: Node) -> Iterator[str]:
    for field in fields(Node):
        one, other = getattr(before, field.name), getattr(now, field.name)
        # Python takes 1 and true for equal, which are not the same in a config.
        if one != other or repr(one) != repr(other):
            yield field.name


def _states(run: Run, begun: dict[str, str]) -> dict[tuple[str, str], tuple[object, ...]]:
    return {
        (scope.id, name): _state(state)
        for scope in run.scopes.values()
        for name, state in scope.nodes.items()
        if name in begun
    }


def _state(state: NodeState) -> tuple[object, ...]:
    loop = state.loop
    far = (loop.next, loop.done, loop.failed, sorted(loop.open)) if loop is not None else None
    return (
        *(state.phase, state.outcome, state.port, state.output),
        *(state.attempt, state.retries, state.visits, far),
    )
