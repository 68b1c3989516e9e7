"""Whether a run can go over to another version, and that it then ends as that version says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import Constant, Delay, Loop, Node, Plan
from pipeline.core.entries import Migrated
from pipeline.core.events import TimerFired, Woken
from pipeline.core.migration import differences, is_timed
from pipeline.core.program import Program
from pipeline.core.state import Run
from tests.core.agreement import agree, agree_on_ends
from tests.core.plans import ORDERLY, Table, cases, plan_of, schedules, step
from tests.core.reference import expect
from tests.core.test_runs import done, started
from tests.core.world import World
from tests.fix_properties import examples

SURE = replace(ORDERLY, compensations=False)
WAIT = Delay(Constant(60))


def folded(world: World, plan: Plan) -> Run | None:
    """The journal of a run by another plan."""
    other = World(plan, world.table, world.trigger, audited=False)
    other.rows = world.rows
    try:
        return other.replayed()
    except (KeyError, AssertionError, AttributeError):
        return None


def reasons(world: World, plan: Plan) -> list[str]:
    return [each.reason for each in differences(world.run, folded(world, plan), Program(plan))]


def go_over(world: World, plan: Plan) -> None:
    world.auditor = None  # it follows one plan
    old, world.plan, world.program = world.program, plan, Program(plan)
    world.append(Migrated(2, "ann", is_timed(old, world.program)))
    world.restart()


def moved(world: World, plan: Plan) -> World:
    """The run, gone over to another plan."""
    assert reasons(world, plan) == []
    go_over(world, plan)
    world.tell(Woken())
    world.check()
    return world


def waiting(*more: Node) -> World:
    """`a` has ended, `wait` is under way, `z` and what else is given is ahead."""
    world = started(step("a"), step("wait", WAIT, "a"), step("z", after="wait"), *more)
    world.tell(done("a", output="A"))
    return world


def test_what_is_ahead_may_change_and_what_is_new_begins() -> None:
    world = waiting()
    new = plan_of(
        step("a"),
        step("wait", WAIT, "a"),
        step("beside", after="a"),
        step("z", WAIT, "wait"),
        step("last", after="z beside"),
    )
    moved(world, new)
    assert sorted(world.live) == [("", "beside", 1)]
    assert world.run.program.plan.nodes["z"].work == WAIT


def test_the_time_of_a_run_begins_when_it_goes_over_if_nothing_limited_it_before() -> None:
    timed = replace(waiting().plan, timeout=timedelta(minutes=1))
    world = moved(waiting(), timed)
    assert world.armed["run"].delay == 60
    moved(world, replace(timed, timeout=timedelta(minutes=2)))
    assert world.armed["run"].delay == 60
    world.restart()
    world.tell(TimerFired("run"))
    assert world.run.status == "timed_out"
    world.check()


def test_the_time_of_a_run_that_goes_over_while_it_is_held_begins_with_it() -> None:
    world = waiting()
    world.pause()
    timed = replace(world.plan, timeout=timedelta(minutes=1))
    for plan in (timed, world.plan, timed):
        go_over(world, plan)
    assert "run" not in world.armed
    world.resume()
    assert world.armed["run"].delay == 60
    world.check()


def test_what_is_ahead_may_be_left_out() -> None:
    world = moved(waiting(), plan_of(step("a"), step("wait", WAIT, "a")))
    assert world.run.status == "waiting"


def test_what_has_ended_or_is_under_way_must_be_the_same() -> None:
    world = waiting()
    new = plan_of(
        step("a", WAIT), step("wait", WAIT, "a", timeout=timedelta(1)), step("z", after="wait")
    )
    assert reasons(world, new) == [
        "`a` has ended, and is changed: what it does.",
        "`wait` is under way, and is changed: its timeout.",
    ]
    assert reasons(world, plan_of(step("wait", WAIT), step("z", after="wait"))) == [
        "`a` has ended, and is not there any more.",
        "`wait` is under way, and is changed: what it waits for.",
    ]


def test_the_timeout_of_what_has_ended_no_longer_matters() -> None:
    new = plan_of(step("a", timeout=timedelta(1)), step("wait", WAIT, "a"), step("z", after="wait"))
    assert reasons(waiting(), new) == []


def test_nothing_new_may_come_before_what_has_begun() -> None:
    world = started(step("a"), step("b", after="a"))
    world.tell(done("a"))
    new = plan_of(step("a"), step("n"), step("m", after="n"), step("b", after="a"))
    assert reasons(world, new) == []
    between = plan_of(step("a"), step("n", after="a"), step("b", after="n"))
    assert reasons(world, between) == [
        "`b` is under way, and is changed: what it waits for.",
        "`n` is new, and `b`, which follows it, is under way.",
    ]


def test_a_loop_that_has_begun_keeps_its_body() -> None:
    loop = Loop(Constant([1, 2]))
    world = started(step("each", loop), step("one", scope="each"), step("z", after="each"))
    bodies: Iterable[tuple[Plan, list[str]]] = (
        (
            plan_of(
                step("each", loop),
                step("one", scope="each"),
                step("two", scope="each", after="one"),
                step("z", after="each"),
            ),
            ["`two` is new, and is in the loop `each`, which has begun."],
        ),
        (
            plan_of(step("each", loop), step("one", WAIT, scope="each"), step("z", after="each")),
            ["`one` is under way, and is changed: what it does."],
        ),
        (
            plan_of(step("each", loop), step("one", scope="each"), step("z", WAIT, after="each")),
            [],
        ),
    )
    for plan, expected in bodies:
        assert reasons(world, plan) == expected


def test_a_run_that_is_paused_goes_over_and_begins_nothing_until_it_is_resumed() -> None:
    world = waiting()
    world.pause()
    new = plan_of(
        step("a"), step("wait", WAIT, "a"), step("beside", after="a"), step("z", after="wait")
    )
    moved(world, new)
    assert not world.live
    world.resume()
    assert sorted(world.live) == [("", "beside", 1)]


@examples(100)
@given(cases(SURE), schedules, st.integers(0, 30))
def test_going_over_to_the_same_changes_nothing(
    case: tuple[Plan, Table], schedule: list[int], turns: int
) -> None:
    world = played(World(*case, audited=False), schedule, turns)
    if not world.run.finished:
        moved(world, case[0]).play_on(schedule)
    agree(world, case, expect(*case, world.run.trigger))


@examples(200)
@given(st.data(), cases(SURE), schedules, st.integers(0, 12))
def test_a_run_that_goes_over_ends_as_the_new_version_says(
    data: st.DataObject, case: tuple[Plan, Table], schedule: list[int], turns: int
) -> None:
    plan, table = case
    old = without(plan, data.draw(st.sets(st.sampled_from(list(plan.nodes)), max_size=3)))
    world = played(World(old, table, audited=False), schedule, turns)
    if world.run.finished or reasons(world, plan):
        return
    moved(world, plan).play_on(schedule)
    expected = expect(plan, table, world.run.trigger)
    assert world.run.status == expected.status
    agree_on_ends(world.entries, expected)


def played(world: World, schedule: list[int], turns: int) -> World:
    world.tell(Woken())
    for turn in range(turns):
        choices = world.next_events()
        if world.run.finished or not choices:
            break
        pick = schedule[turn] if turn < len(schedule) else 0
        world.tell(choices[pick % len(choices)])
    return world


def without(plan: Plan, names: set[str]) -> Plan:
    """The plan without these nodes, where nobody needs them."""
    nodes = dict(plan.nodes)
    for name in names:
        needed = plan.followers[name] or plan.members.get(name) or name in plan.exits
        others = [n for n in nodes.values() if n.scope == nodes[name].scope]
        if not needed and len(others) > 1:
            del nodes[name]
    return Plan(nodes, plan.exits, plan.timeout, plan.max_steps)
