"""Runs that are held, and runs that go on after their end."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st

from permaflow.plan import (
    CONTINUE,
    AtLeast,
    Constant,
    Delay,
    Goto,
    Loop,
    Never,
    Plan,
    Question,
    Ref,
    Retry,
)
from pipeline.core.effects import SetTimer
from pipeline.core.entries import (
    Continued,
    Dispatched,
    Paused,
    Resumed,
    Started,
)
from pipeline.core.events import AttemptDone, CancelAsked, TimerFired, Woken
from tests.core.plans import (
    TASK,
    Table,
    chain,
    plan_of,
    step,
)
from tests.core.test_runs import dispatched, done, failed, started
from tests.core.world import World

Case = tuple[Plan, Table]
moments = st.lists(st.booleans(), max_size=30)

# --- pause and resume -----------------------------------------------------------------------------


def test_a_paused_run_takes_results_in_and_begins_nothing() -> None:
    world = started(step("a"), step("b"), step("c", after="a b"))
    world.pause()
    assert world.run.status == "waiting"
    world.tell(done("a"))
    world.tell(done("b"))
    assert world.outcomes() == {"a": "SUCCESS", "b": "SUCCESS"}
    assert dispatched(world) == ["a", "b"]
    world.check()
    world.resume()
    assert dispatched(world) == ["a", "b", "c"]


def test_no_timer_counts_while_a_run_is_paused_and_each_does_afterwards() -> None:
    world = started(step("wait", Delay(Constant(5))), step("z", after="wait"))
    (key,) = world.armed
    world.pause()
    assert world.tell(TimerFired(key)).entries == []
    assert list(world.armed) == [key]
    world.resume()
    world.tell(TimerFired(key))
    assert dispatched(world) == ["z"]


def test_a_run_that_was_paused_before_it_began_begins_when_it_is_resumed() -> None:
    world = World(chain(TASK))
    world.pause()
    assert world.tell(Woken()).entries == []
    world.resume()
    assert [type(entry) for entry in world.entries[:4]] == [Paused, Resumed, Continued, Started]
    assert dispatched(world) == ["n0"]


def test_a_paused_run_can_be_cancelled() -> None:
    world = started(step("a"))
    world.pause()
    world.tell(CancelAsked("ann"))
    assert world.run.status == "cancelled"
    world.check()


def test_a_paused_run_ends_when_a_step_fails_that_it_does_not_survive() -> None:
    world = started(step("a"), step("b", Delay(Constant(5))))
    world.pause()
    world.tell(failed("a"))
    assert world.run.status == "failed"
    world.check()


def test_a_jump_out_of_a_paused_run_is_made_when_it_goes_on() -> None:
    world = started(
        step("a", on_error=Goto("fix")), step("fix", after=Never()), step("z", after="fix")
    )
    world.pause()
    world.tell(failed("a"))
    world.check()
    assert dispatched(world) == ["a"]
    world.resume()
    world.check()
    assert dispatched(world) == ["a", "fix"]


def test_pausing_twice_and_resuming_once_lets_it_go_on() -> None:
    world = started(step("a"), step("b", after="a"))
    world.pause()
    world.pause()
    world.tell(done("a"))
    world.resume()
    assert dispatched(world) == ["a", "b"]


# --- retry ----------------------------------------------------------------------------------------


def begun(plan: Plan) -> World:
    """A run of `plan` that is opened again later, which the auditor does not follow."""
    world = World(plan, audited=False)
    world.tell(Woken())
    return world


def test_a_retried_run_goes_on_at_its_failed_step_with_fresh_retries() -> None:
    retry = Retry(max_retries=1)
    world = begun(plan_of(step("a"), step("b", after="a", retry=retry), step("c", after="b")))
    world.tell(done("a", output=1))
    world.tell(failed("b"))
    world.tell(*[TimerFired(key) for key in world.armed])
    world.tell(failed("b", 2))
    assert world.run.status == "failed"
    world.retry()
    assert world.run.status == "running"
    assert world.run.error is None
    world.tell(failed("b", 3))
    world.tell(*[TimerFired(key) for key in world.armed])
    world.tell(done("b", 4, output=2))
    world.tell(done("c", output=3))
    assert world.run.status == "completed"
    assert world.outcomes() == {"a": "SUCCESS", "b": "SUCCESS", "c": "SUCCESS"}
    assert [entry.attempt for entry in world.of(Dispatched) if entry.node == "a"] == [1]
    world.check()


def test_what_was_dropped_when_a_run_failed_runs_again_when_it_is_retried() -> None:
    world = begun(plan_of(step("a"), step("b"), step("wait", Delay(Constant(5)))))
    world.tell(failed("a"))
    assert world.stopped == [("", "b", 1)]
    world.retry()
    assert sorted(world.live) == [("", "a", 2), ("", "b", 2)]
    assert [key.split("\x1f")[-1] for key in world.armed] == ["2"]
    world.tell(AttemptDone("", "b", 1, "late"))
    assert "b" not in world.outcomes()
    world.check()


def test_a_cancelled_run_goes_on_where_it_was() -> None:
    world = begun(plan_of(step("ask", Question("person", {})), step("b", after="ask")))
    world.tell(CancelAsked("ann"))
    world.retry()
    assert sorted(world.asked) == [("", "ask", 2)]
    assert world.run.status == "waiting"
    assert world.tell(CancelAsked("ann", reopened=0)).entries == []
    world.tell(CancelAsked("ann", reopened=1))
    assert world.run.status == "cancelled"


def test_iterations_that_were_done_stay_done_and_the_broken_one_goes_on_inside() -> None:
    loop = Loop(Constant(["x", "y", "z"]), parallel=2)
    world = begun(
        plan_of(
            step("each", loop),
            step("one", scope="each"),
            step("two", after="one", scope="each"),
            step("z", after="each"),
        )
    )
    world.tell(done("one", scope="each[0]"))
    world.tell(done("two", scope="each[0]", output="x"))
    world.tell(done("one", scope="each[1]", output="kept"))
    world.tell(failed("two", scope="each[1]"))
    assert world.run.status == "failed"
    world.retry()
    assert sorted(world.live) == [("each[1]", "two", 2), ("each[2]", "one", 2)]
    world.check()
    world.tell(done("two", 2, "y", "each[1]"))
    world.tell(done("one", 2, scope="each[2]"))
    world.tell(done("two", 1, "z", "each[2]"))
    assert world.run.scopes[""].nodes["each"].output == {
        "items": ["x", "y", "z"],
        "count": 3,
        "failed": 0,
    }
    world.tell(done("z"))
    assert world.run.status == "completed"


def test_a_loop_that_ran_out_of_time_gets_its_whole_time_again() -> None:
    loop = Loop(Constant([1]))
    world = begun(
        plan_of(step("each", loop, timeout=timedelta(seconds=9)), step("one", scope="each"))
    )
    (key,) = world.armed
    world.tell(TimerFired(key))
    assert world.run.status == "failed"
    world.retry()
    (again,) = world.armed
    assert again != key
    assert world.armed[again] == SetTimer(again, 9.0)
    assert world.tell(TimerFired(key)).entries == []
    world.tell(done("one", 2, scope="each[0]"))
    assert world.run.status == "completed"


def test_a_run_that_ran_out_of_time_gets_its_whole_time_again() -> None:
    world = begun(plan_of(step("a"), timeout=timedelta(seconds=60)))
    world.tell(TimerFired("run"))
    assert world.run.status == "timed_out"
    world.retry()
    assert world.tell(TimerFired("run")).entries == []
    (key,) = world.armed
    assert world.armed[key] == SetTimer(key, 60.0)
    world.tell(TimerFired(key))
    assert world.run.status == "timed_out"


def test_the_target_of_a_jump_that_failed_is_what_runs_again() -> None:
    world = begun(plan_of(step("a", on_error=Goto("fix")), step("fix", after=Never())))
    world.tell(failed("a"))
    world.tell(failed("fix"))
    world.retry()
    assert sorted(world.live) == [("", "fix", 2)]


def test_a_failure_that_the_plan_dealt_with_is_left_alone() -> None:
    world = begun(
        plan_of(
            step("a", on_error=CONTINUE),
            step("plan_b", after=Ref("a", frozenset({"FAILED"}))),
            step("c", after=AtLeast(1, (Ref("a"), Ref("plan_b")))),
        )
    )
    world.tell(failed("a"))
    world.tell(done("plan_b"))
    world.tell(failed("c"))
    world.retry()
    assert sorted(world.live) == [("", "c", 2)]
    assert world.run.scopes[""].context["error"]["node"] == "a"


def test_a_run_without_a_good_end_retries_all_that_failed_and_what_was_skipped_for_it() -> None:
    world = begun(
        plan_of(
            step("a", on_error=CONTINUE),
            step("b", after="a"),
            step("c", after="b"),
            exits=("c",),
        )
    )
    world.tell(failed("a"))
    assert world.run.status == "failed"
    world.retry()
    world.tell(done("a", 2))
    world.tell(done("b"))
    world.tell(done("c"))
    assert world.run.status == "completed"


def test_what_a_step_sees_after_a_retry_is_no_error_that_is_mended() -> None:
    world = begun(plan_of(step("a"), step("b", after="a")))
    world.tell(failed("a"))
    world.retry()
    world.tell(done("a", 2))
    assert "error" not in world.run.root.context
    assert "error" not in world.run.root.steps["a"]


def test_what_was_under_way_by_a_jump_or_in_a_loop_goes_on_after_a_cancellation() -> None:
    world = begun(
        plan_of(
            step("a", on_error=Goto("fix")),
            step("fix", after=Never()),
            step("each", Loop(Constant([1, 2, 3]))),
            step("one", scope="each"),
        )
    )
    world.tell(failed("a"))
    world.tell(done("one", output="kept", scope="each[0]"))
    world.tell(CancelAsked("ann"))
    world.retry()
    assert sorted(world.live) == [("", "fix", 2), ("each[1]", "one", 2)]
    world.check()
