"""What a rerun takes over, and that it goes on from there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import (
    CONTINUE,
    Constant,
    Goto,
    Loop,
    Never,
    Node,
    Or,
    Pass,
    Plan,
    Ref,
    Task,
    Trigger,
)
from pipeline.core.entries import Dispatched, Kept, from_row
from pipeline.core.events import AttemptFailed, Woken
from pipeline.core.program import Program
from pipeline.core.rerun import begins_at, what_is_kept, what_is_missing
from tests.core.agreement import agree_on_ends
from tests.core.plans import ORDERLY, TASK, Table, Told, cases, plan_of, schedules, step
from tests.core.reference import expect
from tests.core.test_runs import done, failed
from tests.core.world import World
from tests.fix_properties import examples

SURE = replace(ORDERLY, compensations=False)


def rerun(world: World, start: str, plan: Plan | None = None) -> World:
    """A new run that takes over what an ended one had done before `start`."""
    plan = plan or world.plan
    again = World(plan, world.table, world.trigger, audited=False)
    kept = what_is_kept(world.run, Program(plan), begins_at(world.plan, start))
    if kept:
        again.append(*kept)
    again.tell(Woken())
    return again


def ended(plan: Plan, *events: object) -> World:
    world = World(plan, audited=False)
    world.tell(Woken())
    for event in events:
        world.tell(event)  # type: ignore[arg-type]
    assert world.run.finished
    return world


def test_siblings_and_what_came_before_are_kept_with_their_outputs() -> None:
    plan = plan_of(
        step("t0", Trigger()),
        step("a", after="t0"),
        step("b", after="a"),
        step("beside", after="t0"),
        step("c", after="b beside"),
    )
    world = ended(plan, done("a", output="A"), done("beside", output="B"), done("b"), done("c"))
    again = rerun(world, "b")
    assert [entry.node for entry in again.of(Kept)] == ["a", "beside"]
    assert sorted(again.live) == [("", "b", 1)]
    assert again.run.root.steps["a"]["output"] == "A"
    again.tell(done("b"))
    again.tell(done("c", output="C"))
    assert again.run.status == "completed"
    assert again.output() == "C"
    again.check()


def test_a_rerun_from_inside_a_loop_does_the_whole_loop_again() -> None:
    plan = plan_of(
        step("before"),
        step("each", Loop(Constant([1, 2])), after="before"),
        step("one", scope="each"),
    )
    world = ended(plan, done("before"), done("one", scope="each[0]"), done("one", scope="each[1]"))
    again = rerun(world, "one")
    assert [entry.node for entry in again.of(Kept)] == ["before"]
    assert sorted(again.live) == [("each[0]", "one", 1)]


def test_the_failure_that_ended_the_run_is_not_taken_over_and_one_that_was_handled_is() -> None:
    plan = plan_of(
        step("a", on_error=CONTINUE),
        step("plan_b", after=Ref("a", frozenset({"FAILED"}))),
        step("c", after="plan_b"),
        step("d"),
    )
    world = ended(plan, failed("a"), done("plan_b"), failed("d"))
    again = rerun(world, "c")
    assert [(e.node, e.outcome) for e in again.of(Kept)] == [("a", "FAILED"), ("plan_b", "SUCCESS")]
    assert sorted(again.live) == [("", "c", 1), ("", "d", 1)]
    assert again.run.root.context["error"]["message"] == "It broke."


JUMP = plan_of(
    step("pay", on_error=Goto("e")),
    step("ship", after="pay"),
    step("e", Pass(Told()), Never()),
    step("notify", after="e"),
    step("last", Task("stage", {"seen": Told()}), "notify"),
)
"""When `pay` fails, `e`, `notify` and `last` follow instead of `ship`."""


def test_what_a_jump_led_to_is_kept_and_what_failed_before_it_is_not_done_again() -> None:
    again = rerun(ended(JUMP, failed("pay"), done("notify"), done("last")), "last")
    assert again.outcomes() == {
        "pay": "FAILED",
        "ship": "SKIPPED",
        "e": "SUCCESS",
        "notify": "SUCCESS",
    }
    assert sorted(again.live) == [("", "last", 1)]
    assert again.live["", "last", 1].config["seen"]["code"] == "broke"
    again.check()
    again.tell(done("last"))
    assert again.run.status == "completed"


@pytest.mark.parametrize("start", ["e", "notify"])
def test_a_rerun_from_where_a_jump_led_to_begins_there(start: str) -> None:
    again = rerun(ended(JUMP, failed("pay"), done("notify"), done("last")), start)
    assert sorted(again.live) == [("", "notify", 1)]
    assert again.outcomes() == {"pay": "FAILED", "ship": "SKIPPED", "e": "SUCCESS"}
    again.check()


def test_what_a_failure_led_to_is_not_taken_over_without_it() -> None:
    again = rerun(ended(JUMP, failed("pay"), done("notify"), done("last")), "pay")
    assert again.of(Kept) == []
    again.tell(done("pay"))
    again.tell(done("ship"))
    assert again.run.status == "completed"
    assert [n for n, outcome in again.outcomes().items() if outcome == "SUCCESS"] == ["pay", "ship"]
    assert "error" not in again.run.root.context


def test_what_the_failure_of_another_step_led_to_is_kept() -> None:
    plan = plan_of(*JUMP.nodes.values(), step("x", on_error=Goto("e")))
    world = ended(plan, done("pay"), done("ship"), failed("x"), done("notify"), done("last"))
    again = rerun(world, "pay")
    assert sorted(again.live) == [("", "pay", 1)]


def test_a_step_that_no_exitpoint_was_reached_for_runs_again_with_what_followed_from_it() -> None:
    plan = plan_of(*JUMP.nodes.values(), step("c"), exits=("ship",))
    world = ended(plan, done("c"), failed("pay"), done("notify"), done("last"))
    assert world.run.status == "failed"
    again = rerun(world, "c")
    assert again.of(Kept) == []
    assert sorted(again.live) == [("", "c", 1), ("", "pay", 1)]


def test_where_a_jump_back_led_to_is_taken_over() -> None:
    plan = plan_of(step("a"), step("b", after="a", on_error=Goto("a")))
    world = ended(plan, done("a"), failed("b"), done("a", 2, output="A"), done("b", 2))
    again = rerun(world, "b")
    assert [(entry.node, entry.output) for entry in again.of(Kept)] == [("a", "A")]
    assert sorted(again.live) == [("", "b", 1)]


def test_the_failure_at_the_limit_of_visits_is_not_taken_over() -> None:
    plan = plan_of(
        step("a"),
        step("b", after="a", on_error=Goto("e")),
        step("e", after=Never(), max_visits=0),
        step("c"),
    )
    again = rerun(ended(plan, done("c"), done("a"), failed("b")), "c")
    assert sorted(again.live) == [("", "b", 1), ("", "c", 1)]


def test_a_handler_that_failed_itself_runs_again_without_what_led_to_it() -> None:
    plan = plan_of(step("pay", on_error=Goto("e")), step("e", after=Never()), step("c"))
    again = rerun(ended(plan, done("c"), failed("pay"), failed("e")), "c")
    assert sorted(again.live) == [("", "c", 1), ("", "e", 1)]
    again.check()


def test_an_error_is_kept_as_a_whole() -> None:
    plan = plan_of(step("a", on_error=CONTINUE), step("z", after=Ref("a", frozenset({"FAILED"}))))
    event = AttemptFailed("", "a", 1, "broke", "It broke.", False, details={"status": 404})
    world = ended(plan, event, done("z"))
    again = rerun(world, "z")
    assert again.run.root.steps["a"] == world.run.root.steps["a"]
    assert again.run.root.context["error"]["details"] == {"status": 404}
    again.check()
    assert from_row([["kept", "", "a", "FAILED", None, None, None, "broke", "It broke."]]) == [
        Kept("", "a", "FAILED", code="broke", message="It broke.")
    ]


def test_another_version_must_have_what_is_kept() -> None:
    world = ended(
        plan_of(step("a"), step("b"), step("c", after="a b")), *[done(name) for name in "abc"]
    )
    new = plan_of(step("b", Pass()), step("c", after="b"), step("d"))
    kept = what_is_kept(world.run, Program(new), "c")
    assert what_is_missing(kept, world.plan, new, "c") == [
        "`a` has ended, and is not there.",
        "`b` was of type test, and is test there.",
    ]
    assert what_is_missing([], world.plan, new, "x") == [
        "`x`, from which it is to begin, is not there."
    ]
    fits = plan_of(step("a"), step("b"), step("c", after="a b"), step("d", after="c"))
    again = rerun(world, "c", fits)
    assert sorted(again.live) == [("", "c", 1)]


def test_nothing_may_come_before_what_is_kept_that_did_not() -> None:
    old = plan_of(
        step("a"), step("d"), step("b", after=Or((Ref("a"), Ref("d")))), step("c", after="b")
    )
    world = ended(old, done("a"), done("b"), done("c"), failed("d"))

    def missing(*nodes: Node) -> list[str]:
        new = plan_of(*nodes)
        return what_is_missing(what_is_kept(world.run, Program(new), "c"), old, new, "c")

    first, *others = old.nodes.values()
    assert missing(first, *others) == []
    assert missing(first, step("n", after="a"), *others[:2], step("c", after="b n")) == []
    assert missing(step("t9", Trigger()), step("a", after="t9"), *others) == []
    assert missing(step("n"), step("a", after="n"), *others) == [
        "`n` has not ended, and comes before `a` there, which has."
    ]
    assert missing(step("a", after="d"), *others) == [
        "`d` has not ended, and comes before `a` there, which has."
    ]


@examples(150)
@given(st.data(), cases(SURE), schedules, schedules)
def test_a_rerun_from_any_step_comes_to_what_the_run_came_to(
    data: st.DataObject, case: tuple[Plan, Table], schedule: list[int], again: list[int]
) -> None:
    world = World(*case, audited=False)
    world.play(schedule)
    start = data.draw(st.sampled_from(list(world.plan.nodes)))
    repeated = rerun(world, start)
    kept = {entry.node for entry in repeated.of(Kept)}
    repeated.check()
    repeated.play_on(again)
    expected = expect(*case, world.run.trigger)
    assert repeated.run.status == expected.status
    assert not kept & {entry.node for entry in repeated.of(Dispatched) if not entry.scope}
    known = [entry for entry in world.entries if getattr(entry, "node", "") in kept]
    inner = [e for e in world.entries if inside(world.plan, getattr(e, "node", "")) in kept]
    agree_on_ends([*known, *inner, *repeated.entries], expected)


def inside(plan: Plan, name: str) -> str:
    """The loop of the whole run that a node is in, or itself."""
    return begins_at(plan, name) if name in plan.nodes else ""


def test_a_rerun_of_everything_keeps_nothing() -> None:
    world = ended(plan_of(step("a", TASK)), done("a"))
    assert what_is_kept(world.run, Program(world.plan), "a") == []
