"""What is over is known to be over, without a look at the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from permaflow.plan import Compensation, Constant, Loop
from pipeline.core.decide import decide
from pipeline.core.events import AttemptDone, AttemptFailed, AttemptParked, Event, TimerFired, Woken
from pipeline.core.state import timer_key
from tests.core.plans import TASK, Broke, Table, plan_of, step
from tests.core.world import World


def looping() -> World:
    outer = step("outer", Loop(Constant([1, 2, 3]), parallel=2))
    inner = step("inner", Loop(Constant([1, 2]), parallel=2), scope="outer")
    world = World(plan_of(outer, inner, step("body", scope="inner"), step("last")))
    world.tell(Woken())
    return world


def body(scope: str, attempt: int = 1) -> AttemptDone:
    return AttemptDone(scope, "body", attempt, None)


def counted(world: World, event: Event) -> tuple[int, int]:
    decision = world.tell(event)
    assert decision.entries == []
    return decision.stale, decision.unknown


def test_the_result_of_a_closed_iteration_is_stale() -> None:
    world = looping()
    world.tell(body("outer[0].inner[0]"))
    assert counted(world, body("outer[0].inner[0]")) == (1, 0)
    world.tell(body("outer[0].inner[1]"))
    assert "outer[0]" not in world.run.scopes
    assert counted(world, body("outer[0].inner[0]")) == (1, 0)
    assert counted(world, AttemptFailed("outer[0].inner[1]", "body", 1, "x", "late")) == (1, 0)


@pytest.mark.parametrize(
    "scope", ["outer[2].inner[0]", "outer[1].inner[7]", "nowhere[0]", "outer[x]", "[", "@[0]", "]["]
)
def test_an_iteration_that_is_not_open_yet_is_unknown(scope: str) -> None:
    assert counted(looping(), body(scope)) == (0, 1)


def test_after_the_loop_all_of_its_iterations_are_over() -> None:
    world = looping()
    for outer in range(3):
        for inner in range(2):
            world.tell(body(f"outer[{outer}].inner[{inner}]"))
    assert counted(world, body("outer[2].inner[1]")) == (1, 0)


def test_a_retry_timer_that_has_fired_is_stale_and_one_that_may_still_come_is_not() -> None:
    world = World(plan_of(step("a"), step("b")))
    world.tell(Woken())
    key = timer_key("retry", "", "a", 1)
    assert counted(world, TimerFired(key)) == (0, 1)
    world.tell(AttemptParked("", "a", 1, 5.0))
    world.tell(TimerFired(key))
    assert counted(world, TimerFired(key)) == (1, 0)
    assert counted(world, TimerFired(timer_key("retry", "", "a", 2))) == (0, 1)


@pytest.mark.parametrize("key", ["run", "what", "retry\x1f\x1fa\x1fx", "retry\x1f\x1fa", ""])
def test_a_timer_that_no_step_of_this_state_ever_had_is_unknown(key: str) -> None:
    world = World(plan_of(step("a"), step("b")))
    world.tell(Woken())
    assert counted(world, TimerFired(key)) == (0, 1)


def test_the_result_of_a_compensation_is_not_known_before_the_run_is_undone() -> None:
    undo = Compensation("undo", TASK)
    one = replace(step("one", scope="each"), compensation=undo)
    plan = plan_of(step("each", Loop(Constant([1]))), one, step("last", TASK, "each"))
    world = World(plan, Table({"last": [Broke(retryable=False)]}))
    world.tell(Woken())
    world.tell(AttemptDone("each[0]", "one", 1))
    old = world.replayed()
    world.tell(world.next_events()[0])
    assert world.live.keys() == {("each[0]", "one#compensate", 1)}
    decision = decide(old, [AttemptDone("each[0]", "one#compensate", 1)])
    assert (decision.stale, decision.unknown) == (0, 1)
