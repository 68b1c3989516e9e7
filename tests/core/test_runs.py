"""Runs by example: failures, jumps, joins, delays, limits, and what comes late."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from permaflow.plan import (
    CONTINUE,
    FAILURES,
    AtLeast,
    Branch,
    Constant,
    Delay,
    Goto,
    Loop,
    Never,
    Node,
    Pass,
    Ref,
    Retry,
    Settled,
    Task,
    Trigger,
)
from pipeline.core.decide import decide
from pipeline.core.dispatching import outstanding
from pipeline.core.effects import ClearTimer, Dispatch, SetTimer, StopStep
from pipeline.core.entries import (
    Cancelled,
    Dispatched,
    Jumped,
    Logged,
    Skipped,
    Succeeded,
    Waiting,
)
from pipeline.core.events import AttemptDone, AttemptFailed, AttemptParked, TimerFired, Woken
from tests.core.plans import (
    TASK,
    Broke,
    Broken,
    Done,
    Put,
    Seen,
    Table,
    chain,
    plan_of,
    step,
)
from tests.core.world import World


def done(name: str, attempt: int = 1, output: Any = None, scope: str = "") -> AttemptDone:
    return AttemptDone(scope, name, attempt, output)


def failed(name: str, attempt: int = 1, scope: str = "", **options: Any) -> AttemptFailed:
    return AttemptFailed(scope, name, attempt, "broke", "It broke.", **options)


def started(*nodes: Node, **options: Any) -> World:
    world = World(plan_of(*nodes, **options))
    world.tell(Woken())
    return world


def dispatched(world: World) -> list[str]:
    return [entry.node for entry in world.of(Dispatched)]


# --- order ----------------------------------------------------------------------------------------


def test_steps_of_a_chain_run_one_after_another_and_the_last_gives_the_output() -> None:
    world = World(chain(TASK, TASK, TASK))
    world.tell(Woken())
    for name in ("n0", "n1", "n2"):
        assert [key[1] for key in world.live] == [name]
        world.tell(done(name, output=f"{name}!"))
    assert world.run.status == "completed"
    assert world.output() == "n2!"


def test_a_run_without_nodes_is_completed_at_once() -> None:
    assert started().run.status == "completed"


def test_a_switch_takes_one_port_and_skips_what_hangs_on_the_others() -> None:
    cases = (("a", Constant(False)), ("b", Constant(True)))
    world = started(
        step("switch", Branch(cases, None)),
        step("left", after=Ref("switch", port="a")),
        step("below", after="left"),
        step("right", after=Ref("switch", port="b")),
    )
    assert dispatched(world) == ["right"]
    assert [entry.node for entry in world.of(Skipped)] == ["left", "below"]


def test_only_the_trigger_that_fired_has_followers() -> None:
    plan = plan_of(
        step("hook", Trigger()),
        step("cron", Trigger()),
        step("a", after="hook"),
        step("b", after="cron"),
    )
    world = World(plan, trigger="cron")
    world.play()
    assert dispatched(world) == ["b"]
    assert world.outcomes() == {
        "hook": "SKIPPED",
        "cron": "SUCCESS",
        "a": "SKIPPED",
        "b": "SUCCESS",
    }


# --- joins ----------------------------------------------------------------------------------------


def fan(count: int, join: Any, **options: Any) -> list[Node]:
    names = [f"n{i}" for i in range(count)]
    refs = tuple(Ref(name) for name in names)
    return [
        *(step(name) for name in names),
        step("join", after=join(refs), **options),
        step("z", after="join"),
    ]


def test_a_join_of_any_fires_with_the_first_and_stops_the_losers() -> None:
    nodes = fan(3, lambda refs: AtLeast(1, refs), cancels=("n0", "n1", "n2"))
    world = started(*nodes)
    world.tell(done("n1"))
    assert world.stopped == [("", "n0", 1), ("", "n2", 1)]
    assert world.outcomes() == {"n0": "CANCELLED", "n1": "SUCCESS", "n2": "CANCELLED"}
    decision = world.tell(done("n0"), failed("n2"))
    assert (decision.entries, decision.stale) == ([], 2)
    world.play_on()
    assert dispatched(world).count("join") == 1


def test_an_n_of_m_join_fires_with_the_nth_and_is_skipped_once_it_cannot() -> None:
    nodes = fan(3, lambda refs: AtLeast(2, refs), cancels=("n0", "n1", "n2"))
    world = started(*nodes)
    world.tell(done("n2"))
    assert "join" not in dispatched(world)
    world.tell(done("n0"))
    assert dispatched(world)[-1] == "join"
    continued = [step(f"n{i}", on_error=CONTINUE) for i in range(3)]
    world = started(*continued, *nodes[3:])
    world.tell(failed("n0", retryable=False))
    assert not world.of(Skipped)
    world.tell(failed("n1", retryable=False))
    assert [entry.node for entry in world.of(Skipped)] == ["join", "z"]


def test_a_loser_that_waits_for_its_retry_is_cancelled_with_its_timer() -> None:
    world = started(
        step("slow", retry=Retry(3)),
        step("quick"),
        step("join", after=AtLeast(1, (Ref("slow"), Ref("quick"))), cancels=("slow",)),
    )
    world.tell(failed("slow"))
    (timer,) = world.armed
    decision = world.tell(done("quick"))
    assert ClearTimer(timer) in decision.effects
    assert world.tell(TimerFired(timer)).entries == []


def test_what_a_join_cancels_in_the_same_turn_is_never_sent() -> None:
    world = started(
        step("gate", Pass()),
        step("loser"),
        step("join", Pass(), after=AtLeast(1, (Ref("gate"), Ref("loser"))), cancels=("loser",)),
    )
    assert world.of(Dispatched) == [("", "loser", 1)]
    assert not [effect for effect in world.effects if isinstance(effect, Dispatch)]
    assert StopStep("", "loser", 1) in world.effects


# --- failures -------------------------------------------------------------------------------------


def test_stop_ends_the_run_and_stops_what_else_is_running() -> None:
    world = started(step("a"), step("b"), step("c", after="a"))
    world.tell(failed("a", retryable=False))
    assert world.run.status == "failed"
    assert world.run.error == {"code": "broke", "message": "It broke.", "node": "a"}
    assert world.stopped == [("", "b", 1)]


def test_continue_makes_a_failure_an_outcome_like_any_other() -> None:
    world = started(
        step("a", on_error=CONTINUE),
        step("after", after="a"),
        step("rescue", after=Ref("a", FAILURES)),
    )
    world.tell(failed("a", retryable=False))
    assert dispatched(world) == ["a", "rescue"]
    world.tell(done("rescue"))
    assert world.run.status == "completed"


def test_goto_opens_a_handler_that_sees_the_error() -> None:
    handler = Task("stage", {"seen": Seen(("a",))})
    world = started(step("a", on_error=Goto("handler")), step("handler", handler, Never()))
    assert [entry.node for entry in world.of(Skipped)] == ["handler"]
    world.tell(failed("a", retryable=False))
    (sent,) = world.live.values()
    assert sent.config["seen"]["error"]["code"] == "broke"
    world.tell(done("handler"))
    assert world.run.status == "completed"


def test_goto_backwards_runs_what_follows_again_until_the_limit() -> None:
    nodes = step("a", max_visits=2), step("b", after="a", on_error=Goto("a")), step("c", after="b")
    world = World(plan_of(*nodes), Table({"b": [Broke(retryable=False)]}))
    world.play()
    assert dispatched(world) == ["a", "b"] * 3
    assert len(world.of(Jumped)) == 2
    assert world.run.error is not None
    assert world.run.error["code"] == "visit_limit"


def test_a_result_from_before_a_jump_is_not_taken_for_one_after_it() -> None:
    world = started(step("a"), step("slow", after="a"), step("b", after="a", on_error=Goto("a")))
    world.tell(done("a"))
    world.tell(failed("b", retryable=False))
    assert world.stopped == [("", "slow", 1)]
    assert world.of(Jumped) == [Jumped("", "b", "a", ["slow"])]
    world.tell(done("a", 2))
    assert world.tell(done("slow", 1, "old")).entries == []
    assert ("", "slow", 2) in world.live


def test_steps_without_a_value_that_jump_to_each_other_end_at_the_limit() -> None:
    broken = Task("stage", {"value": Broken()})
    world = started(
        step("a", broken, on_error=Goto("b"), max_visits=5_000),
        step("b", broken, Never(), on_error=Goto("a"), max_visits=5_000),
    )
    assert world.run.status == "failed"
    assert len(world.of(Jumped)) == 10_000


def test_exits_decide_whether_a_run_that_has_ended_was_good() -> None:
    nodes = (
        step("a", on_error=CONTINUE),
        step("good", after="a"),
        step("bad", after=Ref("a", FAILURES)),
    )
    for answer, status in ((done("a"), "completed"), (failed("a", retryable=False), "failed")):
        world = started(*nodes, exits=("good",))
        world.tell(answer)
        world.play_on()
        assert world.run.status == status
    assert world.run.error == {"code": "broke", "message": "It broke.", "node": "a"}


def test_a_run_whose_exits_were_lost_to_a_timeout_says_so() -> None:
    nodes = step("slow", on_error=CONTINUE), step("good", after="slow")
    world = started(*nodes, exits=("good",))
    world.tell(failed("slow", retryable=False, timed_out=True))
    assert world.run.error == {"code": "broke", "message": "It broke.", "node": "slow"}


# --- late results ---------------------------------------------------------------------------------


def test_the_late_success_of_a_timed_out_attempt_counts_neither_before_nor_after_its_retry() -> (
    None
):
    world = started(step("a", retry=Retry(1)))
    world.tell(failed("a", timed_out=True))
    (timer,) = world.armed
    before = world.tell(done("a", 1, "late"))
    assert (before.entries, before.stale) == ([], 1)
    world.tell(TimerFired(timer))
    after = world.tell(done("a", 1, "late"))
    assert (after.entries, after.stale) == ([], 1)
    world.tell(done("a", 2, "in time"))
    assert world.output() == "in time"


def test_the_late_success_of_the_last_attempt_changes_no_failure() -> None:
    world = started(step("a", on_error=CONTINUE), step("b"))
    world.tell(failed("a", timed_out=True, retryable=False))
    assert world.tell(done("a", 1, "late")).entries == []
    assert world.outcomes() == {"a": "TIMED_OUT"}


def test_an_attempt_that_the_state_does_not_know_yet_is_unknown_not_stale() -> None:
    world = started(step("a"))
    for event in (
        done("a", 2),
        done("b"),
        done("a", 1, scope="l[0]"),
        TimerFired("delay\x1f\x1fa\x1f1"),
    ):
        decision = world.tell(event)
        assert (decision.entries, decision.stale, decision.unknown) == ([], 0, 1)


def test_a_dispatch_asked_for_again_has_the_config_that_it_was_sent_with() -> None:
    curious = Task("stage", {"seen": Seen(("other",))})
    world = started(step("curious", curious), step("other", on_error=CONTINUE))
    (before,) = [effect for effect in outstanding(world.run) if effect.node == "curious"]
    assert before.config["seen"]["steps"] == {"other": None}
    world.tell(failed("other", retryable=False))
    for run in (world.run, world.replayed()):
        assert outstanding(run) == [before]


# --- delays and timeouts --------------------------------------------------------------------------


def test_a_delay_waits_for_its_timer_and_the_run_says_so() -> None:
    world = started(step("wait", Delay(Constant(90))), step("a", after="wait"))
    assert world.run.status == "waiting"
    (timer,) = world.armed.values()
    assert timer.delay == 90.0
    world.tell(TimerFired(timer.key))
    assert world.run.status == "running"
    assert dispatched(world) == ["a"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("2030-01-31T09:00:00Z", "2030-01-31T09:00:00+00:00"),
        ("2030-01-31T09:00:00.5+20:00", "2030-01-30T13:00:00.500000+00:00"),
        ("2030-01-31T09:00:00+05:30:15.123456", "2030-01-31T03:29:44.876544+00:00"),
    ],
)
def test_a_moment_to_wait_for_is_written_as_every_database_reads_it(
    value: str, written: str
) -> None:
    world = started(step("wait", Delay(until=Constant(value))))
    assert world.of(Waiting) == [("", "wait", None, written)]


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e300, 10**400, True, "90", None, [1]])
def test_a_duration_that_is_none_fails_the_step(value: Any) -> None:
    world = started(step("wait", Delay(Constant(value)), on_error=CONTINUE))
    assert world.outcomes() == {"wait": "FAILED"}
    assert not world.armed


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "2030-01-31T09:00:00",
        "2030-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:00:00-14:00",
        "",
        5,
        None,
    ],
)
def test_a_moment_that_is_none_fails_the_step(value: Any) -> None:
    world = started(step("wait", Delay(until=Constant(value)), on_error=CONTINUE))
    assert world.outcomes() == {"wait": "FAILED"}
    assert not world.armed


def test_a_negative_duration_is_over_at_once() -> None:
    world = started(step("wait", Delay(Constant(-5))))
    assert [timer.delay for timer in world.armed.values()] == [0.0]


@pytest.mark.parametrize(
    "work", [Delay(Constant(500)), Loop(Constant([1, 2]), parallel=2)], ids=["delay", "loop"]
)
def test_what_no_runner_does_has_its_timeout_from_the_core(work: Any) -> None:
    node = step("a", work, timeout=timedelta(seconds=7), on_error=CONTINUE)
    world = started(node, step("body", scope="a"), step("next", after=Ref("a", FAILURES)))
    (timer,) = [timer for key, timer in world.armed.items() if key.startswith("timeout")]
    assert timer.delay == 7.0
    world.tell(TimerFired(timer.key))
    assert world.outcomes() == {"a": "TIMED_OUT"}
    assert dispatched(world)[-1] == "next"
    assert not world.armed
    world.check()


def test_a_run_that_takes_too_long_is_timed_out_and_stops_its_steps() -> None:
    world = started(step("a"), timeout=timedelta(minutes=5))
    assert world.armed["run"] == SetTimer("run", 300.0)
    world.tell(TimerFired("run"))
    assert world.run.status == "timed_out"
    assert world.stopped == [("", "a", 1)]


def test_an_armed_run_timeout_alone_is_no_waiting() -> None:
    assert started(step("a"), timeout=timedelta(minutes=5)).run.status == "running"


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "status"), [(2, "failed"), (3, "completed"), (4, "completed")])
def test_a_run_may_take_as_many_steps_as_its_limit_says(limit: int, status: str) -> None:
    world = World(chain(TASK, Pass(), TASK, max_steps=limit))
    world.play()
    assert world.run.status == status
    assert world.run.steps_used == min(limit, 3)


@pytest.mark.parametrize(("limit", "status"), [(2, "failed"), (3, "completed"), (4, "completed")])
def test_every_attempt_is_a_step(limit: int, status: str) -> None:
    table = Table({"a": [Broke(), Broke(), Done()]})
    world = World(plan_of(step("a", retry=Retry(2)), max_steps=limit), table)
    world.play()
    assert world.run.status == status


def test_a_step_that_is_put_off_for_ever_uses_up_the_steps_of_its_run() -> None:
    world = started(step("a"), max_steps=5)
    for attempt in range(1, 6):
        world.tell(AttemptParked("", "a", attempt, 1.0))
        (timer,) = world.armed
        world.tell(TimerFired(timer))
    assert world.run.error is not None
    assert world.run.error["code"] == "step_limit"
    assert len(world.attempts) == 5


@pytest.mark.parametrize("visits", [1, 2, 3])
def test_a_step_may_be_gone_to_as_often_as_its_limit_says(visits: int) -> None:
    table = Table({"a": [Broke(retryable=False), Broke(retryable=False), Done()]})
    world = World(plan_of(step("a", on_error=Goto("a"), max_visits=visits)), table)
    world.play()
    assert world.run.status == ("failed" if visits < 2 else "completed")
    assert len(world.attempts) == min(visits + 1, 3)


def test_a_wide_join_is_decided_once_by_its_last_branch() -> None:
    names = [f"n{i}" for i in range(50)]
    join = step("join", after=Settled(tuple(Ref(name) for name in names)))
    world = started(*(step(name) for name in names), join)
    for name in reversed(names):
        assert "join" not in dispatched(world)
        world.tell(done(name))
    assert dispatched(world).count("join") == 1


def test_a_state_is_settled_by_one_call_of_decide_however_many_events_it_gets() -> None:
    world = World(plan_of(*(step(f"n{i}") for i in range(3)), step("z", after="n0 n1 n2")))
    world.tell(Woken())
    decision = decide(world.run, [done("n0"), done("n1"), done("n2")])
    assert [type(entry) for entry in decision.entries] == [Succeeded] * 3 + [Dispatched]


def test_a_cancelled_node_is_told_apart_from_a_skipped_one() -> None:
    world = started(
        step("a"),
        step("b"),
        step("after_b", after="b"),
        step("join", after=AtLeast(1, (Ref("a"), Ref("b"))), cancels=("b",)),
    )
    world.tell(done("a"))
    assert [entry.node for entry in world.of(Cancelled)] == ["b"]
    assert [entry.node for entry in world.of(Skipped)] == ["after_b"]


@pytest.mark.parametrize(
    ("asked", "granted"),
    [(5.0, 5.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 316_224_000.0), (1e300, 316_224_000.0)],
)
def test_nobody_is_put_off_for_longer_than_ten_years(asked: float, granted: float) -> None:
    world = started(step("a"))
    world.tell(AttemptParked("", "a", 1, asked))
    assert [timer.delay for timer in world.armed.values()] == [granted]


def test_a_wait_that_is_no_number_leaves_the_backoff_as_it_is() -> None:
    retry = Retry(3, timedelta(seconds=2), timedelta(seconds=60), 1.0, jitter=0.0)
    world = started(step("a", retry=retry))
    world.tell(failed("a", after=math.nan))
    assert [timer.delay for timer in world.armed.values()] == [2.0]


def test_being_put_off_twice_sets_a_timer_each_time() -> None:
    world = World(plan_of(step("a")), Table({"a": [Put(3.0), Put(4.0), Done()]}))
    world.play()
    delays = [effect.delay for effect in world.effects if isinstance(effect, SetTimer)]
    assert delays == [3.0, 4.0]


def test_what_an_attempt_wrote_stands_in_the_journal_before_its_end() -> None:
    world = started(step("a"))
    world.tell(done("a")._replace(log=["on it", "done"]))
    kinds = [type(entry) for entry in world.entries]
    assert world.of(Logged) == [Logged("", "a", 1, ["on it", "done"])]
    assert kinds.index(Logged) == kinds.index(Succeeded) - 1


def test_what_an_attempt_wrote_that_is_over_is_not_kept() -> None:
    world = started(step("a"))
    world.tell(done("a"))
    assert world.tell(done("a")._replace(log=["late"])).entries == []
