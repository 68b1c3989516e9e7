"""Loops: order, limits, failures, nesting, and what an item costs."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import CONTINUE, FAILURES, Constant, Goto, Loop, Never, Pass, Plan, Ref, Task
from pipeline.core.decide import decide
from pipeline.core.effects import Dispatch
from pipeline.core.entries import Dispatched, Iterated, IterationFailed
from pipeline.core.events import AttemptDone, AttemptFailed, Woken
from tests.core.plans import TASK, Seen, Table, cases, plan_of, schedules, step
from tests.core.world import World
from tests.fix_properties import examples

ITEM = Task("stage", {"seen": Seen(())})


def looped(items: Any, parallel: int = 1, body: Any = TASK, **options: Any) -> Plan:
    loop = Loop(Constant(items), parallel, **options)
    return plan_of(step("loop", loop, on_error=CONTINUE), step("body", body, scope="loop"))


def started(plan: Plan) -> World:
    world = World(plan)
    world.tell(Woken())
    return world


def finish(world: World, index: int, output: Any = None) -> None:
    world.tell(AttemptDone(f"loop[{index}]", "body", 1, output))


def break_(world: World, index: int) -> None:
    world.tell(AttemptFailed(f"loop[{index}]", "body", 1, "broke", f"{index} broke", False))


def open_now(world: World) -> list[str]:
    return sorted(scope for scope, _, _ in world.live)


@examples(200)
@given(st.integers(0, 12), st.integers(1, 5), schedules)
def test_each_index_runs_once_and_never_more_are_open_than_may_be(
    size: int, parallel: int, schedule: list[int]
) -> None:
    world = started(looped(list(range(size)), parallel))
    most = 0
    for turn in range(size):
        most = max(most, len(world.run.scopes) - 1)
        choices = world.next_events()
        pick = schedule[turn] if turn < len(schedule) else 0
        world.tell(choices[pick % len(choices)])
    assert world.run.status == "completed"
    assert most == min(parallel, size)
    seen = Counter(entry.scope for entry in world.of(Dispatched))
    assert seen == {f"loop[{i}]": 1 for i in range(size)}
    assert world.output() == {
        "items": [f"loop[{i}]/body#1" for i in range(size)],
        "count": size,
        "failed": 0,
    }


@examples(150)
@given(cases(), schedules)
def test_in_random_plans_too_iterations_begin_once_and_in_order(
    case: tuple[Plan, Table], schedule: list[int]
) -> None:
    world = World(*case, audited=False)
    world.play(schedule)
    at: dict[tuple[str, str], int] = {}
    for entry in world.entries:
        if isinstance(entry, Iterated):
            where = entry.scope, entry.node
            visit_begins = entry.first == 0
            assert entry.first == (0 if visit_begins else at[where])
            at[where] = entry.first + entry.size


def test_an_iteration_sees_its_item_its_index_and_the_steps_around_the_loop() -> None:
    body = Task("stage", {"seen": Seen(("before", "body"))})
    plan = plan_of(
        step("before"),
        step("loop", Loop(Constant(["x", "y"]), 2), "before"),
        step("body", body, scope="loop"),
    )
    world = started(plan)
    world.tell(AttemptDone("", "before", 1, "b"))
    first, second = (sent.config["seen"] for sent in world.live.values())
    assert (first["loop"], second["loop"]) == ({"item": "x", "index": 0}, {"item": "y", "index": 1})
    assert first["steps"]["before"]["output"] == "b"
    assert first["steps"]["body"] is None


def test_an_object_is_looped_over_by_key_and_value() -> None:
    world = started(looped({"a": 1}, body=ITEM))
    (sent,) = world.live.values()
    assert sent.config["seen"]["loop"]["item"] == {"key": "a", "value": 1}


def test_a_handler_that_loops_sees_the_error_in_its_body() -> None:
    plan = plan_of(
        step("a", on_error=Goto("loop")),
        step("loop", Loop(Constant(["ann", "bob"]), 2), Never()),
        step("body", ITEM, scope="loop"),
    )
    world = started(plan)
    world.tell(AttemptFailed("", "a", 1, "broke", "It broke.", retryable=False))
    assert [sent.config["seen"]["error"]["code"] for sent in world.live.values()] == ["broke"] * 2


@pytest.mark.parametrize(("size", "outcome"), [(2, "SUCCESS"), (3, "SUCCESS"), (4, "FAILED")])
def test_a_loop_may_have_as_many_items_as_its_limit_says(size: int, outcome: str) -> None:
    world = started(looped(list(range(size)), body=Pass(), max_items=3))
    assert world.outcomes() == {"loop": outcome}


@pytest.mark.parametrize("items", [None, "text", 5, True])
def test_what_is_no_list_fails_the_loop(items: Any) -> None:
    assert started(looped(items)).outcomes() == {"loop": "FAILED"}


# --- failing iterations ---------------------------------------------------------------------------


def test_with_stop_on_error_a_failed_iteration_fails_the_loop_and_stops_the_others() -> None:
    world = started(looped([0, 1, 2, 3], 3))
    finish(world, 0)
    break_(world, 2)
    assert world.outcomes() == {"loop": "FAILED"}
    assert {scope for scope, _, _ in world.stopped} == {"loop[1]", "loop[3]"}
    assert world.run.root.steps["loop"]["error"]["message"] == "2 broke"
    late = world.tell(AttemptDone("loop[1]", "body", 1))
    assert late.entries == []


def test_without_stop_on_error_failed_iterations_are_counted_and_leave_a_gap() -> None:
    world = started(looped([0, 1, 2], 2, stop_on_error=False))
    break_(world, 1)
    finish(world, 2, "c")
    finish(world, 0, "a")
    assert world.output() == {"items": ["a", None, "c"], "count": 3, "failed": 1}
    assert len(world.of(IterationFailed)) == 1


def test_a_failure_that_is_continued_fails_no_iteration() -> None:
    plan = plan_of(
        step("loop", Loop(Constant([0]))),
        step("body", scope="loop", on_error=CONTINUE),
        step("rescue", after=Ref("body", FAILURES), scope="loop"),
    )
    world = started(plan)
    break_(world, 0)
    world.tell(AttemptDone("loop[0]", "rescue", 1, "saved"))
    assert world.output() == {"items": ["saved"], "count": 1, "failed": 0}


def test_a_jump_inside_an_iteration_stays_inside_it() -> None:
    plan = plan_of(
        step("loop", Loop(Constant([0, 1]), 2)),
        step("first", scope="loop"),
        step("body", after="first", scope="loop", on_error=Goto("first")),
    )
    world = started(plan)
    for index in (0, 1):
        world.tell(AttemptDone(f"loop[{index}]", "first", 1))
    break_(world, 0)
    assert set(world.live) == {("loop[0]", "first", 2), ("loop[1]", "body", 1)}


def test_a_loop_that_is_gone_to_again_runs_all_its_items_in_scopes_of_their_own() -> None:
    plan = plan_of(
        step("loop", Loop(Constant([0, 1]), 2)),
        step("body", scope="loop"),
        step("check", after="loop", on_error=Goto("loop")),
    )
    world = started(plan)
    finish(world, 0, "old")
    finish(world, 1, "old")
    world.tell(AttemptFailed("", "check", 1, "broke", "", retryable=False))
    assert open_now(world) == ["loop@1[0]", "loop@1[1]"]
    assert world.tell(AttemptDone("loop[0]", "body", 1, "late")).entries == []
    for index in (1, 0):
        world.tell(AttemptDone(f"loop@1[{index}]", "body", 1, f"new {index}"))
    assert world.run.root.steps["loop"]["output"]["items"] == ["new 0", "new 1"]


# --- nesting --------------------------------------------------------------------------------------


def test_loops_in_loops_give_lists_of_lists_in_order() -> None:
    plan = plan_of(
        step("outer", Loop(Constant([0, 1, 2]), 2)),
        step("inner", Loop(Constant([0, 1]), 1), scope="outer"),
        step("body", scope="inner"),
    )
    world = World(plan)
    world.play([7, 3, 5, 1, 8, 2])
    outputs = [inner["items"] for inner in world.output()["items"]]
    assert outputs == [[f"outer[{i}].inner[{j}]/body#1" for j in (0, 1)] for i in (0, 1, 2)]


def test_a_failure_deep_inside_stops_every_loop_around_it() -> None:
    plan = plan_of(
        step("outer", Loop(Constant([0, 1]), 2)),
        step("inner", Loop(Constant([0, 1]), 2), scope="outer"),
        step("body", scope="inner"),
    )
    world = started(plan)
    world.tell(AttemptFailed("outer[1].inner[0]", "body", 1, "broke", "", retryable=False))
    assert world.run.status == "failed"
    assert len(world.stopped) == 3
    assert set(world.run.scopes) == {""}


# --- what an item costs ---------------------------------------------------------------------------


def calls(plan: Plan) -> int:
    """Python calls that a run takes, each attempt answered as it comes."""
    run = World(plan, audited=False).run
    count = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    waiting = [e for e in decide(run, [Woken()]).effects if isinstance(e, Dispatch)]
    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        while waiting:
            sent, waiting = waiting, []
            for effect in sent:
                waiting += decide(run, [AttemptDone(*effect[:3])]).effects  # type: ignore[arg-type]
    finally:
        sys.setprofile(before)
    assert run.status == "completed"
    return count


@pytest.mark.parametrize("parallel", [1, 50, 100_000])
def test_an_item_costs_the_same_in_a_long_loop_as_in_a_short_one(parallel: int) -> None:
    short, long = (calls(looped([0] * size, parallel)) / size for size in (500, 5_000))
    assert long < short * 1.1


def test_an_item_of_a_nested_loop_costs_the_same_however_many_there_are() -> None:
    def nested(size: int) -> Plan:
        return plan_of(
            step("outer", Loop(Constant([0] * size), 8)),
            step("inner", Loop(Constant([0] * 20), 8), scope="outer"),
            step("body", scope="inner"),
        )

    short, long = (calls(nested(size)) / (20 * size) for size in (50, 400))
    assert long < short * 1.1


def test_ten_thousand_items_are_joined_once() -> None:
    plan = plan_of(
        step("loop", Loop(Constant(list(range(10_000))), 1_000)),
        step("body", scope="loop"),
        step("after", after="loop"),
    )
    run = World(plan, audited=False).run
    waiting = list(decide(run, [Woken()]).effects)
    joined = 0
    while waiting:
        events = [AttemptDone(*effect[:3], effect[0]) for effect in waiting]  # type: ignore[misc]
        joined += sum(effect.node == "after" for effect in waiting)  # type: ignore[union-attr]
        waiting = decide(run, events).effects
    assert run.status == "completed"
    assert joined == 1
    assert run.root.steps["loop"]["output"]["items"] == [f"loop[{i}]" for i in range(10_000)]
    assert set(run.scopes) == {""}
