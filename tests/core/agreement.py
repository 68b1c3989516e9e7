"""Whether a run came to what the reference interpreter says."""

from __future__ import annotations

from collections.abc import Sequence

from permaflow.plan import Outcome, Plan
from pipeline.core.entries import (
    Asked,
    Compensating,
    Dispatched,
    Entry,
    Failed,
    Skipped,
    Succeeded,
)
from tests.core.plans import Broke, Done, Table
from tests.core.reference import Expected
from tests.core.world import World

Case = tuple[Plan, Table]


def agree(world: World, case: Case, expected: Expected) -> None:
    """Every node ended as it had to, by as many attempts; what a failure left undecided may have
    ended or not. The run ends so, too, after what undoes it."""
    forward, undoing = turned(world)
    agree_on_ends(forward, expected)
    attempts = {entry[:3] for entry in forward if isinstance(entry, Dispatched | Asked)}
    assert expected.sure.attempts <= attempts
    assert attempts <= expected.possible.attempts | expected.sure.attempts
    assert world.run.status == undone_status(case, expected.status, undoing)
    if world.run.status == "completed":
        assert world.run.output() == expected.output


def agree_on_ends(entries: Sequence[Entry], expected: Expected) -> None:
    ends = {e[:2]: end_of(e) for e in entries if isinstance(e, Succeeded | Failed | Skipped)}
    sure = {where: outcome for where, (outcome, _) in expected.sure.ends.items()}
    possible = {where: outcome for where, (outcome, _) in expected.possible.ends.items()}
    assert sure.items() <= ends.items() <= (possible | sure).items()


def turned(world: World) -> tuple[list[Entry], list[Entry]]:
    """The entries up to the moment when the run does not complete, and those that undo it."""
    for at, entry in enumerate(world.entries):
        if isinstance(entry, Compensating):
            return world.entries[:at], world.entries[at + 1 :]
    return world.entries, []


def undone_status(case: Case, status: str, undoing: list[Entry]) -> str:
    """How a run ends that would end with this status, if that is what undoes it."""
    plan, table = case
    begun = [e for e in undoing if isinstance(e, Dispatched | Failed)]
    firsts = {(e.scope, e.node): e for e in reversed(begun)}
    ends = [comes_to(plan, table, *where) for where in firsts]
    if False in ends:
        return "failed"
    return "compensated" if any("#" in name for _, name in firsts) else status


def comes_to(plan: Plan, table: Table, scope: str, name: str) -> bool:
    """Whether what undoes a node, or tells of a failure, succeeds in the end."""
    if name.endswith("#compensate"):
        node = plan.nodes[name.removesuffix("#compensate")].compensation
        assert node is not None
    else:
        node = next(node for node in plan.on_failure if node.id == name)
    if "value" in node.work.config:
        return False
    attempt = failures = 0
    while True:
        attempt += 1
        match table(scope, name, attempt):
            case Done():
                return True
            case Broke(retryable=retryable):
                failures += 1
                if not retryable or failures > node.retry.max_retries:
                    return False


def end_of(entry: Entry) -> Outcome:
    match entry:
        case Succeeded():
            return Outcome.SUCCESS
        case Failed(timed_out=timed_out):
            return Outcome.TIMED_OUT if timed_out else Outcome.FAILED
        case _:
            return Outcome.SKIPPED
