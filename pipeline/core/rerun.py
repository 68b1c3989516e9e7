"""What a rerun of a run takes over: how the nodes ended that do not follow from where it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from permaflow.plan import FAILURES, ROOT, Continue, Goto, Outcome, Plan, Question, Trigger
from pipeline.core.approval import KIND as APPROVAL
from pipeline.core.entries import Kept
from pipeline.core.program import Program
from pipeline.core.state import Run


def begins_at(plan: Plan, name: str) -> str:
    """The node of the whole run that a rerun from `name` begins at: a loop is done again as a
    whole.
    """
    node = plan.nodes[name]
    while node.scope != ROOT:
        node = plan.nodes[node.scope]
    return node.id


def what_is_kept(run: Run, program: Program, start: str) -> list[Kept]:
    """The outcomes that a rerun of `run` from `start` on takes over, for the plan of `program`.

    A failure that ended the run is none of them, and triggers are done again.
    """
    last = run.program.plan.nodes.get(run.error["node"]) if run.error is not None else None
    ended_it = [last.id] if last is not None and isinstance(last.on_error, Goto) else []
    again = _done_again(run, program, [start, *ended_it])
    found: list[Kept] = []
    for name, state in run.root.nodes.items():
        node = run.program.plan.nodes[name]
        if state.outcome is None or name in again or isinstance(node.work, Trigger):
            continue
        if state.outcome is Outcome.SUCCESS:
            found.append(Kept(ROOT, name, "SUCCESS", state.output, state.port))
        elif state.outcome not in FAILURES:
            found.append(Kept(ROOT, name, state.outcome.value))
        elif isinstance(node.on_error, Continue | Goto):
            error = dict(run.root.steps[name]["error"])
            found.append(Kept(ROOT, error.pop("node"), state.outcome.value, **error))
    return found


def _done_again(run: Run, program: Program, starts: Iterable[str]) -> set[str]:
    """These nodes, and all that follows from them by both plans or followed from their failures.

    A jump back is none of it: what it led to came before.
    """
    again: set[str] = set()
    ahead = list(starts)
    while ahead:
        name = ahead.pop()
        if name in again:
            continue
        again.add(name)
        for plan in (run.program.plan, program.plan):
            ahead += plan.followers.get(name, ())
        state = run.root.nodes.get(name)
        if state is None or state.outcome not in FAILURES:
            continue
        match run.program.plan.nodes[name].on_error:
            case Goto(node=target) if name not in run.program.descendants(target):
                ahead.append(target)
    return again


def what_was_asked(kept: Iterable[Kept], plan: Plan, kind: str = APPROVAL) -> dict[str, Question]:
    """The questions of a kind among these outcomes, also those inside of loops, by their nodes."""
    names = {entry.node for entry in kept}
    return {
        node.id: node.work
        for node in plan.nodes.values()
        if isinstance(node.work, Question)
        and node.work.kind == kind
        and begins_at(plan, node.id) in names
    }


def what_is_missing(kept: Sequence[Kept], old: Plan, new: Plan, start: str) -> list[str]:
    """Why these outcomes cannot be taken over to another version; empty if they can."""
    found = [] if start in new.nodes else [f"`{start}`, from which it is to begin, is not there."]
    for entry in kept:
        before, now = old.nodes[entry.node], new.nodes.get(entry.node)
        if now is None:
            found.append(f"`{entry.node}` has ended, and is not there.")
        elif now.scope != ROOT:
            found.append(f"`{entry.node}` has ended, and is in the loop `{now.scope}` there.")
        elif (now.type, type(now.work)) != (before.type, type(before.work)):
            found.append(f"`{entry.node}` was of type {before.type}, and is {now.type} there.")
    return [*found, *_put_before({entry.node for entry in kept}, old, new)]


def _put_before(kept: Set[str], old: Plan, new: Plan) -> Iterator[str]:
    """What has not ended, and has to before something that has: that would not wait for it."""
    for name, node in new.nodes.items():
        if name in kept or isinstance(node.work, Trigger):
            continue
        known = old.followers.get(name, ())
        for later in new.followers[name]:
            if later in kept and later not in known:
                yield f"`{name}` has not ended, and comes before `{later}` there, which has."
