"""A run that does not complete is undone, step by step, before it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from permaflow.errors import EvaluationError
from permaflow.plan import (
    CONTINUE,
    Compensation,
    Constant,
    Context,
    Goto,
    Json,
    Loop,
    Node,
    OnUnknown,
    Plan,
    Question,
    Retry,
    Task,
    Work,
)
from pipeline.core.effects import Ask, ClearTimer, StopStep, Withdraw
from pipeline.core.entries import Compensating, Dispatched, Failed, Finished, Retrying, Succeeded
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    AttemptParked,
    CancelAsked,
    Event,
    TimerFired,
    Woken,
)
from tests.core.plans import TASK, Answer, Broke, Done, Put, Seen, Table, plan_of, step
from tests.core.world import World

NO = Broke(retryable=False)
UNDO = Compensation("undo", Task("stage", {"seen": Seen(("a", "b", "c", "each", "one", "two"))}))


class Given:
    """The context of an expression, and these steps of it."""

    def __init__(self, *steps: str) -> None:
        self.steps = steps

    def evaluate(self, context: Context) -> Json:
        names = ("trigger", "error", "run", "loop")
        steps = {name: context.get("steps").get(name) for name in self.steps}
        return {name: context.get(name) for name in names} | {"steps": steps}


def undoable(name: str, after: str = "", *, work: Work = TASK, **options: Any) -> Node:
    made = step(name, work, after, **options) if after else step(name, work, **options)
    return replace(made, compensation=options.get("compensation", UNDO))


def ran(world: World) -> list[str]:
    """What has been sent to runners since the run turned, in order."""
    turned = next(i for i, e in enumerate(world.entries) if isinstance(e, Compensating))
    return [
        f"{e.scope}/{e.node}" if e.scope else e.node
        for e in world.entries[turned:]
        if isinstance(e, Dispatched) and e.attempt == 1 + world.entries[:turned].count(e)
    ]


def sent_to(world: World, node: str, attempt: int = 1, scope: str = "") -> Json:
    return world.sent[scope, node, attempt].config


def chain(*, table: Table | None = None, **options: Any) -> World:
    nodes = [undoable("a"), undoable("b", "a"), undoable("c", "b"), step("last", TASK, "c")]
    return World(plan_of(*nodes, **options), table or Table({"last": [NO]}))


def test_a_run_that_fails_undoes_what_succeeded_the_last_first() -> None:
    world = chain()
    run = world.play(check=True)
    assert ran(world) == ["c#compensate", "b#compensate", "a#compensate"]
    assert run.status == "compensated"
    assert run.error == {"code": "broke", "message": "('', 'last', 1)", "node": "last"}


def test_one_compensation_runs_at_a_time() -> None:
    world = chain()
    world.tell(Woken())
    while world.run.cause is None:
        world.tell(world.next_events()[0])
    while not world.run.finished:
        assert len(world.live) == 1
        assert world.run.status == "compensating"
        world.tell(world.next_events()[0])


def test_a_compensation_sees_what_its_step_gave_back_and_why_the_run_failed() -> None:
    undo = Compensation("undo", Task("stage", {"all": Given("a", "b")}))
    world = World(
        plan_of(undoable("a", compensation=undo), step("b", TASK, "a")), Table({"b": [NO]})
    )
    world.play()
    seen = sent_to(world, "a#compensate")["all"]
    assert seen["trigger"] == {"amount": 3}
    assert seen["steps"].get("a")["output"] == "/a#1"
    assert seen["error"]["node"] == "b"
    assert seen["error"]["code"] == "broke"


def test_a_run_without_anything_to_undo_fails_at_once() -> None:
    world = World(plan_of(undoable("a")), Table({"a": [NO]}))
    assert world.play().status == "failed"
    assert world.of(Compensating) == []


def test_a_run_that_completes_undoes_nothing() -> None:
    world = chain(table=Table())
    assert world.play().status == "completed"
    assert not any("#" in name for _, name, _ in world.sent)


def test_a_compensation_is_retried_as_it_says() -> None:
    undo = replace(UNDO, retry=Retry(2, timedelta(seconds=5), factor=1.0, jitter=0.0))
    plan = plan_of(undoable("a", compensation=undo), step("b", TASK, "a"))
    world = World(plan, Table({"b": [NO], "a#compensate": [Broke(), Put(3.0), Done()]}))
    run = world.play(check=True)
    assert [entry.delay for entry in world.of(Retrying)] == [5.0]
    assert world.attempts >= {("", "a#compensate", n) for n in (1, 2, 3)}
    assert run.status == "compensated"


def test_a_compensation_that_fails_does_not_keep_the_others_from_running() -> None:
    world = chain(table=Table({"last": [NO], "b#compensate": [NO]}))
    run = world.play(check=True)
    assert ran(world) == ["c#compensate", "b#compensate", "a#compensate"]
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["code"] == "compensation_failed"
    assert run.error["node"] == "b#compensate"
    assert run.error["cause"]["code"] == "broke"
    assert [(f["node"], f["code"]) for f in run.error["failed"]] == [("b#compensate", "broke")]
    assert "b#compensate (broke)" in run.error["message"]


def test_a_compensation_whose_config_has_no_value_has_failed_and_the_others_run() -> None:
    class Nothing:
        def evaluate(self, context: Context) -> Json:
            raise EvaluationError("nothing there")

    undo = Compensation("undo", Task("stage", {"x": Nothing()}))
    plan = plan_of(undoable("a"), undoable("b", "a", compensation=undo), step("c", TASK, "b"))
    world = World(plan, Table({"c": [NO]}))
    run = world.play(check=True)
    assert ran(world) == ["a#compensate"]
    assert [(e.node, e.code) for e in world.of(Failed)] == [
        ("c", "broke"),
        ("b#compensate", "evaluation"),
    ]
    assert run.status == "failed"


# --- whatever ends the run ------------------------------------------------------------------------


def begun(plan: Plan, table: Table | None = None, turns: int = 1) -> World:
    world = World(plan, table)
    world.tell(Woken())
    for _ in range(turns):
        world.tell(world.next_events()[0])
    return world


def test_a_run_that_is_cancelled_is_undone() -> None:
    plan = plan_of(undoable("a"), step("b", TASK, "a"), on_failure=(step("told"),))
    world = begun(plan)
    world.tell(CancelAsked("ann", "enough"))
    assert world.run.status == "compensating"
    run = world.play_on(check=True)
    assert ran(world) == ["a#compensate"]  # to cancel is not to fail: nobody is told
    assert run.status == "compensated"
    assert run.error == {"code": "cancelled", "message": "enough", "node": ""}


def test_to_cancel_while_it_is_undone_changes_nothing() -> None:
    world = begun(plan_of(undoable("a"), step("b", TASK, "a")))
    world.tell(CancelAsked("ann"))
    decision = world.tell(CancelAsked("bob"))
    assert (decision.entries, decision.effects, decision.stale) == ([], [], 1)
    assert world.play_on(check=True).status == "compensated"


def test_to_cancel_a_run_that_failed_while_it_is_undone_changes_nothing() -> None:
    world = chain()
    world.tell(Woken())
    while world.run.cause is None:
        world.tell(world.next_events()[0])
    decision = world.tell(CancelAsked("bob"))
    assert (decision.entries, decision.effects, decision.stale) == ([], [], 1)
    assert (world.play_on(check=True).error or {})["code"] == "broke"


def test_a_run_that_is_out_of_time_is_undone_and_has_all_the_time_for_it() -> None:
    plan = plan_of(undoable("a"), step("b", TASK, "a"), timeout=timedelta(seconds=9))
    world = begun(plan)
    decision = world.tell(TimerFired("run"))
    assert ClearTimer("run") in decision.effects
    assert world.armed == {}
    run = world.play_on(check=True)
    assert (run.status, run.error) == (
        "compensated",
        {"code": "run_timeout", "message": "The run took longer than it may.", "node": ""},
    )


def test_a_run_that_used_up_its_steps_is_undone_all_the_same() -> None:
    plan = plan_of(undoable("a"), undoable("b", "a"), step("c", TASK, "b"), max_steps=2)
    world = World(plan)
    run = world.play(check=True)
    assert ran(world) == ["b#compensate", "a#compensate"]
    assert run.error is not None
    assert (run.status, run.error["code"]) == ("compensated", "step_limit")
    assert run.steps_used == 2


def test_what_undoes_a_run_that_used_up_its_steps_is_retried_all_the_same() -> None:
    undo = replace(UNDO, retry=Retry(1, timedelta(0)))
    plan = plan_of(undoable("a", compensation=undo), step("b", TASK, "a"), max_steps=1)
    world = World(plan, Table({"a#compensate": [Broke(), Done()]}))
    run = world.play(check=True)
    assert [e.attempt for e in world.of(Dispatched)] == [1, 1, 2]
    assert run.status == "compensated"


def test_what_is_with_a_runner_is_stopped_and_its_late_result_changes_nothing() -> None:
    plan = plan_of(undoable("a"), step("b"), step("c", TASK, "a"))
    world = begun(plan)
    decision = world.tell(CancelAsked())
    assert StopStep("", "b", 1) in decision.effects
    late = world.tell(AttemptDone("", "b", 1, "late"))
    assert (late.entries, late.stale) == ([], 1)


# --- what nobody knows the outcome of -------------------------------------------------------------


def test_a_step_that_was_with_a_runner_may_have_had_its_effect_and_is_undone() -> None:
    world = begun(plan_of(undoable("a"), undoable("b", "a")))
    world.tell(CancelAsked())
    assert world.run.repair is not None
    world.play_on(check=True)
    assert ran(world) == ["b#compensate", "a#compensate"]
    seen = sent_to(world, "b#compensate")["seen"]["steps"]["b"]
    assert (seen["output"], seen["outcome"]) == (None, "UNKNOWN")


def test_it_is_not_if_its_compensation_is_told_so() -> None:
    sure = replace(UNDO, when_unknown=False)
    world = begun(plan_of(undoable("a"), undoable("b", "a", compensation=sure)))
    world.tell(CancelAsked())
    world.play_on(check=True)
    assert ran(world) == ["a#compensate"]


@pytest.mark.parametrize("answer", [Broke(False, timed_out=True), Broke(True, timed_out=True)])
def test_a_step_that_timed_out_is_undone_once(answer: Broke) -> None:
    retried = Retry(2, timedelta(0))
    world = World(plan_of(undoable("a", retry=retried)), Table({"a": [answer]}))
    world.play(check=True)
    assert ran(world) == ["a#compensate"]


def test_a_step_that_timed_out_first_and_was_refused_then_is_undone() -> None:
    table = Table({"a": [Broke(timed_out=True), NO]})
    world = World(plan_of(undoable("a", retry=Retry(1, timedelta(0)))), table)
    world.play(check=True)
    assert ran(world) == ["a#compensate"]


def test_a_step_that_timed_out_first_and_succeeded_then_is_undone_once() -> None:
    table = Table({"a": [Broke(timed_out=True), Done()], "b": [NO]})
    plan = plan_of(undoable("a", retry=Retry(1, timedelta(0))), step("b", TASK, "a"))
    world = World(plan, table)
    world.play(check=True)
    assert ran(world) == ["a#compensate"]
    assert sent_to(world, "a#compensate")["seen"]["steps"]["a"]["output"] == "/a#2"


def test_a_doubt_is_over_when_its_step_has_succeeded() -> None:
    table = Table({"a": [Broke(timed_out=True), Done(), NO], "b": [NO]})
    plan = plan_of(
        undoable("a", retry=Retry(1, timedelta(0)), max_visits=9),
        step("b", TASK, "a", on_error=Goto("a"), max_visits=9),
    )
    world = World(plan, table)
    run = world.play(check=True)
    assert run.error is not None
    assert run.error["node"] == "a"  # in its second visit, which did nothing
    assert ran(world) == ["a#compensate"]


def test_a_step_that_was_refused_did_nothing() -> None:
    table = Table({"a": [Broke(), NO]})
    world = World(plan_of(undoable("a", retry=Retry(1, timedelta(0)))), table)
    assert world.play(check=True).status == "failed"


def test_a_question_that_nobody_answered_did_nothing() -> None:
    asked = undoable("a", work=Question("person", {}), timeout=timedelta(seconds=5))
    world = begun(plan_of(asked), turns=0)
    world.tell(TimerFired("timeout\x1f\x1fa\x1f1"))
    assert world.run.status == "failed"


# --- executions -----------------------------------------------------------------------------------


def test_steps_in_iterations_that_have_closed_are_undone_each_by_itself() -> None:
    see = Compensation("undo", Task("stage", {"seen": Seen(("one", "two"))}))
    plan = plan_of(
        step("each", Loop(Constant(["x", "y"]))),
        replace(step("one", scope="each"), compensation=see),
        step("two", TASK, "one", scope="each"),
        step("last", TASK, "each"),
    )
    world = World(plan, Table({"last": [NO]}))
    run = world.play(check=True)
    assert ran(world) == ["each[1]/one#compensate", "each[0]/one#compensate"]
    seen = sent_to(world, "one#compensate", scope="each[1]")["seen"]
    assert seen["loop"] == {"item": "y", "index": 1}
    assert seen["steps"]["one"]["output"] == "each[1]/one#1"
    assert seen["steps"]["two"]["output"] == "each[1]/two#1"
    assert run.status == "compensated"


def test_each_visit_of_a_step_is_undone_by_what_it_gave_back() -> None:
    plan = plan_of(
        undoable("a"),
        step("b", TASK, "a", on_error=Goto("a"), max_visits=9),
        step("c", TASK, "b"),
    )
    world = World(plan, Table({"b": [NO, Done()], "c": [NO]}))
    run = world.play(check=True)
    undone = [e for e in world.of(Dispatched) if e.node == "a#compensate"]
    assert [e.attempt for e in undone] == [1, 2]
    outputs = [sent_to(world, "a#compensate", n)["seen"]["steps"]["a"]["output"] for n in (1, 2)]
    assert outputs == ["/a#2", "/a#1"]
    assert [world.sent["", "a#compensate", n].visit for n in (1, 2)] == [0, 1]
    assert run.status == "compensated"


def test_a_failure_that_the_run_survives_undoes_nothing() -> None:
    plan = plan_of(undoable("a"), step("b", TASK, "a", on_error=CONTINUE))
    world = World(plan, Table({"b": [NO]}))
    assert world.play().status == "completed"


# --- on_failure -----------------------------------------------------------------------------------


def handlers() -> tuple[Node, ...]:
    told = Task("stage", {"given": Given("a", "free")})
    return step("free"), step("told", told)


def test_on_failure_runs_in_order_after_the_compensations() -> None:
    world = chain(on_failure=handlers())
    run = world.play(check=True)
    assert ran(world) == ["c#compensate", "b#compensate", "a#compensate", "free", "told"]
    assert run.status == "compensated"


def test_on_failure_runs_without_compensations_and_the_run_stays_failed() -> None:
    plan = plan_of(step("a"), on_failure=handlers())
    world = World(plan, Table({"a": [NO]}))
    run = world.play(check=True)
    assert ran(world) == ["free", "told"]
    assert (run.status, run.error) == (
        "failed",
        {"code": "broke", "message": "('', 'a', 1)", "node": "a"},
    )


def test_on_failure_sees_the_error_the_run_and_what_came_before() -> None:
    world = chain(
        on_failure=handlers(), table=Table({"last": [NO], "b#compensate": [NO], "free": [Done()]})
    )
    world.play()
    seen = sent_to(world, "told")["given"]
    assert (seen["error"]["node"], seen["error"]["code"]) == ("last", "broke")
    assert [f["node"] for f in seen["error"]["compensations_failed"]] == ["b#compensate"]
    assert seen["run"]["status"] == "failed"
    assert seen["steps"].get("free")["output"] == "/free#1"
    assert seen["steps"].get("a")["output"] == "/a#1"


def test_a_handler_that_fails_does_not_keep_the_next_from_running() -> None:
    world = chain(on_failure=handlers(), table=Table({"last": [NO], "free": [NO]}))
    run = world.play(check=True)
    assert ran(world)[-2:] == ["free", "told"]
    assert run.error is not None
    assert (run.status, run.error["code"]) == ("failed", "on_failure_failed")
    assert run.error["node"] == "free"


def test_a_run_that_is_undone_ends_once() -> None:
    world = chain(on_failure=handlers())
    world.play()
    assert world.ends() == [Finished("compensated", "broke", "('', 'last', 1)", "last")]
    assert world.entries[-1] == world.ends()[0]
    assert len(world.of(Succeeded)) == 3 + 3 + 2


# --- what becomes of an unknown outcome -----------------------------------------------------------

LATE = Broke(True, timed_out=True)


def doubtful(on_unknown: OnUnknown, *answers: Answer, **options: Any) -> World:
    node = replace(step("a", retry=Retry(3, timedelta(0)), **options), on_unknown=on_unknown)
    return World(plan_of(node, step("b", TASK, "a")), Table({"a": answers or [LATE]}))


def test_it_is_retried_by_default() -> None:
    world = doubtful(OnUnknown.RETRY, LATE, Done())
    assert world.play(check=True).status == "completed"
    assert world.attempts == {("", "a", 1), ("", "a", 2), ("", "b", 1)}


def test_it_fails_for_good_where_a_step_may_happen_once() -> None:
    world = doubtful(OnUnknown.FAIL)
    assert world.play(check=True).status == "failed"
    assert world.attempts == {("", "a", 1)}


def test_what_was_surely_refused_is_retried_all_the_same() -> None:
    world = doubtful(OnUnknown.FAIL, Broke(), Done())
    assert world.play(check=True).status == "completed"


@pytest.mark.parametrize("code", ["outcome_unknown", "runner_lost"])
def test_a_runner_that_was_lost_leaves_an_unknown_outcome(code: str) -> None:
    world = doubtful(OnUnknown.FAIL)
    world.tell(Woken())
    world.tell(AttemptFailed("", "a", 1, code, "gone", retryable=True))
    assert world.run.status == "failed"


def asked() -> World:
    world = doubtful(OnUnknown.ASK)
    world.tell(Woken())
    decision = world.tell(world.next_events()[0])
    assert [effect.kind for effect in decision.effects if isinstance(effect, Ask)] == ["unknown"]
    assert world.run.status == "waiting"
    assert world.live == {}
    world.check()
    return world


def test_people_are_asked_and_say_that_it_was_done() -> None:
    world = asked()
    decision = world.tell(AttemptDone("", "a", 1, "paid"))
    assert Withdraw("", "a", 1, "unknown", True) in decision.effects
    world.check()
    assert world.play_on(check=True).status == "completed"


def test_people_say_that_it_failed() -> None:
    world = asked()
    world.tell(AttemptFailed("", "a", 1, "resolved", "it did not", retryable=False))
    assert world.run.error == {"code": "resolved", "message": "it did not", "node": "a"}


def test_people_say_try_again_however_often_it_was_tried() -> None:
    world = doubtful(OnUnknown.ASK)
    world.tell(Woken())
    for attempt in range(1, 9):
        world.tell(AttemptFailed("", "a", attempt, "timeout", "late", timed_out=True))
        world.tell(AttemptFailed("", "a", attempt, "resolved", "again", retryable=True))
        assert [entry.delay for entry in world.of(Retrying)][-1] == 0.0
        world.tell(TimerFired(next(iter(world.armed))))
        world.check()
    assert ("", "a", 9) in world.live


def test_to_hear_once_more_that_nobody_knows_changes_nothing() -> None:
    world = asked()
    decision = world.tell(AttemptFailed("", "a", 1, "outcome_unknown", "gone", retryable=False))
    assert (decision.entries, decision.stale) == ([], 1)


@pytest.mark.parametrize(
    ("late", "status"),
    [
        (AttemptDone("", "a", 1, "paid"), "completed"),
        (AttemptFailed("", "a", 1, "broke", "refused", retryable=False), "failed"),
        (AttemptFailed("", "a", 1, "broke", "busy", retryable=True), "completed"),
        (AttemptParked("", "a", 1, 5.0), "completed"),
    ],
)
def test_what_the_runner_says_after_all_answers_for_the_people(late: Event, status: str) -> None:
    world = asked()
    world.table = Table({"a": [Done()]})
    decision = world.tell(late)
    assert Withdraw("", "a", 1, "unknown", True) in decision.effects
    world.check()
    assert world.play_on(check=True).status == status


def test_the_end_of_the_run_withdraws_the_question() -> None:
    world = asked()
    decision = world.tell(CancelAsked())
    assert Withdraw("", "a", 1, "unknown") in decision.effects
    world.check()


def test_who_takes_the_run_over_knows_that_people_were_asked() -> None:
    world = asked()
    world.restart()
    assert world.run.questions == {("", "a"): 1}
    assert world.run.outstanding == {}


def test_a_step_that_people_were_asked_about_may_have_had_its_effect() -> None:
    world = World(plan_of(replace(undoable("a"), on_unknown=OnUnknown.ASK)), Table({"a": [LATE]}))
    world.tell(Woken())
    world.tell(world.next_events()[0])
    world.tell(CancelAsked())
    world.play_on(check=True)
    assert ran(world) == ["a#compensate"]


def test_runners_are_told_which_steps_may_happen_once() -> None:
    for choice in OnUnknown:
        world = doubtful(choice)
        world.tell(Woken())
        assert world.live["", "a", 1].once == (choice is not OnUnknown.RETRY)
