"""Whatever a run does, it may be held at any moment, and go on after its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import CONTINUE, Plan
from pipeline.core.entries import (
    Dispatched,
    Failed,
    Finished,
    Reopened,
)
from pipeline.core.events import Woken
from pipeline.core.state import DUE
from tests.core.agreement import agree, agree_on_ends
from tests.core.plans import (
    ORDERLY,
    Answer,
    Done,
    Table,
    cases,
    schedules,
)
from tests.core.reference import expect
from tests.core.world import World
from tests.fix_properties import examples

Case = tuple[Plan, Table]
NOT_UNDONE = replace(ORDERLY, compensations=False)
moments = st.lists(st.booleans(), max_size=30)


def played_with_pauses(world: World, schedule: list[int], pauses: list[bool]) -> None:
    """Play a run to its end, and pause or resume it wherever `pauses` says so."""
    world.tell(Woken())
    held = iter(pauses)
    for turn in range(4_000):
        if world.run.finished:
            return
        if next(held, False) and world.run.cause is None:  # what is undone cannot be held
            if world.run.paused:
                world.resume()
            else:
                world.pause()
            world.check()
            continue
        choices = world.next_events()
        if not choices:
            assert world.run.paused, "the run is stuck"
            world.resume()
            continue
        pick = schedule[turn] if turn < len(schedule) else 0
        world.tell(choices[pick % len(choices)])
    raise AssertionError("the run did not end")


@examples(200)
@given(cases(ORDERLY), schedules, moments)
def test_pausing_and_resuming_never_changes_what_a_run_comes_to(
    case: Case, schedule: list[int], pauses: list[bool]
) -> None:
    world = World(*case)
    played_with_pauses(world, schedule, pauses)
    agree(world, case, expect(*case, world.run.trigger))


@examples(200)
@given(cases(), schedules, moments)
def test_every_run_that_is_paused_and_resumed_ends_lawfully(
    case: Case, schedule: list[int], pauses: list[bool]
) -> None:
    world = World(*case)
    played_with_pauses(world, schedule, pauses)
    assert len(world.ends()) == 1
    world.check()


@dataclass(frozen=True)
class Mended:
    """A table in which these steps, in these scopes, succeed from now on."""

    table: Table
    steps: frozenset[tuple[str, str]] = frozenset()

    def __call__(self, scope: str, node: str, attempt: int) -> Answer:
        return Done() if (scope, node) in self.steps else self.table(scope, node, attempt)


@examples(250)
@given(cases(NOT_UNDONE), schedules, st.booleans())
def test_a_run_whose_failing_steps_are_mended_comes_to_what_the_reference_interpreter_says(
    case: Case, schedule: list[int], moves: bool
) -> None:
    plan, table = case
    world = World(plan, table, audited=False)
    world.play(schedule)
    mended = Mended(table)
    while world.run.status == "failed":
        world.run = world.replayed() if moves else world.run
        fatal = plan.nodes.get(world.ends()[-1].node)
        if fatal is None or fatal.on_error == CONTINUE:
            return  # what others did about its failures stays, and would not have been
        world.append(Reopened("ann"))
        due = frozenset(
            (scope.id, name)
            for scope in world.run.scopes.values()
            for name, state in scope.nodes.items()
            if state.phase is DUE
        )
        if due <= mended.steps:
            return
        mended = Mended(table, mended.steps | due)
        world.table = mended  # type: ignore[assignment]
        world.tell(Woken())
        world.check()
        world.play_on(schedule)
        world.check()
        expected = expect(plan, mended, world.run.trigger)  # type: ignore[arg-type]
        assert world.run.status == expected.status
        agree_on_ends(world.entries, expected)


@examples(150)
@given(cases(), schedules, schedules, st.booleans())
def test_whatever_ended_can_be_opened_again_and_ends_again(
    case: Case, schedule: list[int], again: list[int], slow: bool
) -> None:
    world = World(*case, audited=False)
    world.play(schedule, slow=slow)
    for _ in range(2):
        if world.run.status == "completed" or was_undone(world):
            return
        world.retry()
        world.check()
        world.play_on(again, slow=slow)
        world.check()
    assert world.entries[-1] == world.ends()[-1]
    assert isinstance(world.entries[-1], Finished)


def was_undone(world: World) -> bool:
    """Then there is nothing to go on from."""
    return any("#compensate" in entry.node for entry in world.of(Dispatched | Failed))  # type: ignore[arg-type]
