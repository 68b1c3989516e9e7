"""Dry runs: the same decisions as a run, and answers that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given

from permaflow.plan import (
    CONTINUE,
    ROOT,
    Branch,
    Constant,
    Delay,
    Goto,
    Json,
    Loop,
    Node,
    Plan,
    Question,
    Ref,
    Retry,
    Task,
    Trigger,
)
from pipeline.core.dry_run import MOST_LOOKS, DryRun, Mock, Mocks, compare, dry_run
from pipeline.core.entries import Failed, Succeeded
from pipeline.core.program import Program
from tests.core.plans import (
    TRIGGER_INPUT,
    Even,
    Kinds,
    Table,
    cases,
    schedules,
)
from tests.core.test_properties import examples
from tests.core.world import World

BEGAN = datetime(2030, 1, 31, 9, tzinfo=UTC)
PLAIN = Kinds(
    jumps=False,
    losers=False,
    limits=False,
    timeouts=False,
    stops=False,
    views=False,
    compensations=False,
)


def plan(*nodes: Node, **more: Any) -> Plan:
    every = (Node("t0", "trigger_manual", Trigger()), *nodes)
    return Plan({node.id: node for node in every}, **more)


def step(name: str, work: Any = None, after: str = "t0", **more: Any) -> Node:
    more.setdefault("when", Ref(after))
    return Node(name, "task", work or Task("stage", {"of": name}), **more)


def played(of: Plan, mocks: Mocks | None = None, data: Json = None, **more: Any) -> DryRun:
    return dry_run(Program(of), data, "t0", mocks or Mocks(), BEGAN, **more)


def told(run: DryRun) -> dict[str, tuple[str, str | None, Json]]:
    return {
        "/".join(filter(None, (each.step.scope, each.step.node))): (
            each.step.status,
            each.step.port,
            each.step.output,
        )
        for each in run.steps
    }


def test_every_step_comes_to_what_it_is_told_or_to_nothing() -> None:
    flow = plan(step("a"), step("b", after="a"))
    run = played(flow, Mocks(given={"a": [Mock({"sum": 3}, "left")]}))
    assert told(run)["a"] == ("completed", "left", {"sum": 3})
    assert told(run)["b"] == ("completed", None, None)
    assert [each.mock for each in run.steps] == [None, "given", "empty"]
    assert run.steps[1].config == {"of": "a"}
    assert run.status == "completed"


def test_successive_attempts_come_to_successive_answers() -> None:
    flow = plan(step("a", retry=Retry(5, timedelta(seconds=30), jitter=0.0)))
    broke = Mock(code="away", message="It is away.", retryable=True)
    run = played(flow, Mocks(given={"a": [broke, broke, Mock(1)]}))
    assert run.status == "completed"
    assert run.steps[1].step.attempts == 3
    assert run.seconds == 30 + 60


def test_a_failure_ends_the_run_as_it_would() -> None:
    run = played(plan(step("a")), Mocks(given={"a": [Mock(code="declined", message="No.")]}))
    assert run.status == "failed"
    assert run.error == {"code": "declined", "message": "No.", "node": "a"}


def test_time_passes_only_for_timers_and_the_earliest_comes_first() -> None:
    day = timedelta(days=1)
    flow = plan(step("rest", Delay(Constant(day.total_seconds()))), step("a", after="rest"))
    assert played(flow).seconds == day.total_seconds()
    hasty = plan(step("rest", Delay(Constant(day.total_seconds()))), timeout=timedelta(hours=1))
    run = played(hasty)
    assert (run.status, run.seconds) == ("timed_out", 3600)


def test_a_delay_until_a_moment_is_waited_for_on_the_clock_of_the_dry_run() -> None:
    until = (BEGAN + timedelta(minutes=5)).isoformat()
    assert played(plan(step("rest", Delay(until=Constant(until))))).seconds == 300


def test_branches_and_loops_are_those_of_the_core() -> None:
    flow = plan(
        step("each", Loop(Constant([1, 2, 3]), parallel=2)),
        Node("even", "logic_condition", Branch((("yes", Even()),), "no"), scope="each"),
    )
    run = played(flow)
    assert run.status == "completed"
    assert {name for name in told(run) if name.startswith("each[")} == {
        f"each[{index}]/even" for index in range(3)
    }


def test_questions_are_answered_by_kind_unless_their_node_is_given() -> None:
    flow = plan(step("ask", Question("approval", {})), step("more", Question("approval", {})))
    yes, no = Mock({"decision": "yes"}, "approved"), Mock({"decision": "no"}, "rejected")
    run = played(flow, Mocks(given={"more": [no]}, questions={"approval": yes}))
    assert told(run)["ask"] == ("completed", "approved", {"decision": "yes"})
    assert told(run)["more"] == ("completed", "rejected", {"decision": "no"})


def test_a_run_that_does_not_end_is_broken_off() -> None:
    flow = plan(step("a", retry=Retry(1_000, timedelta(0))))
    broke = Mock(code="away", retryable=True)
    run = played(flow, Mocks(given={"a": [broke]}), most=50)
    assert (run.status, run.output, run.broken_off) == (None, None, "steps")


def test_a_run_whose_steps_are_told_too_much_is_broken_off() -> None:
    flow = plan(
        step("each", Loop(items=Constant(list(range(1_000))))),
        Node("a", "task", Task("stage", {"of": "x" * 1_000}), scope="each"),
    )
    assert played(flow).status == "completed"
    run = played(flow, most_text=100_000)
    assert (run.status, run.broken_off) == (None, "size")
    assert 90 < len([each for each in run.steps if each.config is not None]) <= 100


class Counted:
    """An expression that counts how often it is evaluated."""

    def __init__(self) -> None:
        self.count = 0

    def evaluate(self, context: Any) -> Json:
        self.count += 1
        return "x" * 1_000


def test_what_is_beyond_the_size_is_not_even_rendered() -> None:
    text = Counted()
    flow = plan(
        step("each", Loop(items=Constant(list(range(5_000))), parallel=5_000)),
        Node("a", "task", Task("stage", {"of": text}), scope="each"),
    )
    assert played(flow, most_text=100_000).broken_off == "size"
    assert text.count == 100


def test_loops_in_loops_that_begin_together_are_given_up() -> None:
    text = Counted()
    many = Constant(list(range(1_000)))
    flow = plan(
        step("first"),
        step("before", after="first"),
        step("outer", Loop(items=many, parallel=1_000), after="before"),
        Node("inner", "logic_loop", Loop(items=many, parallel=1_000), scope="outer"),
        Node("a", "task", Task("stage", {"of": text}), scope="inner"),
    )
    run = played(flow, most=100)
    assert (run.status, run.error, run.broken_off) == (None, None, "steps")
    assert text.count < 100 * MOST_LOOKS
    assert told(run)["first"] == ("completed", None, None)


def test_a_dry_run_that_takes_too_long_tells_what_it_has_found() -> None:
    asked: list[int] = []

    def is_late() -> bool:
        asked.append(1)
        return len(asked) > 20

    flow = plan(step("first"), *(step(f"s{n}", after="first") for n in range(100)))
    run = played(flow, is_late=is_late)
    assert (run.status, run.broken_off) == (None, "time")
    assert told(run)["first"][0] == "running"


def test_a_run_that_is_played_to_its_end_is_not_broken_off() -> None:
    assert played(plan(step("a"))).broken_off is None


def test_a_jump_takes_the_next_answer() -> None:
    flow = plan(step("a"), step("b", after="a", on_error=Goto("a")))
    run = played(flow, Mocks(given={"b": [Mock(code="again"), Mock(2)]}))
    assert (run.status, run.output) == ("completed", 2)


def test_two_plans_are_compared_step_by_step() -> None:
    was = plan(step("a"), step("b", after="a"), step("gone", after="b"))
    now = plan(step("a"), step("b", Task("stage", {"of": "other"}), after="a"), step("new"))
    found = {each.node: each.what for each in compare(played(was), played(now))}
    assert found == {"b": ("config",), "new": ("missing",), "gone": ("missing",)}
    assert compare(played(was), played(was)) == []


def recorded(world: World) -> dict[tuple[str, str], Mock]:
    """What became of every step that somebody answered for, as a journal tells it."""
    found = {}
    for entry in world.entries:
        match entry:
            case Succeeded(attempt=attempt) if attempt:
                found[entry.scope, entry.node] = Mock(entry.output, entry.port)
            case Failed(attempt=attempt) if attempt:
                found[entry.scope, entry.node] = Mock(
                    code=entry.code, message=entry.message, timed_out=entry.timed_out
                )
    return found


@examples(150)
@given(case=cases(PLAIN), schedule=schedules)
def test_with_the_answers_of_a_run_it_takes_the_path_of_that_run(
    case: tuple[Plan, Table], schedule: Sequence[int]
) -> None:
    flow, table = case
    world = World(flow, table, audited=False)
    world.play(schedule)
    dry = dry_run(
        Program(flow), TRIGGER_INPUT, world.run.trigger, Mocks(recorded=recorded(world)), BEGAN
    )
    assert dry.status == world.run.status
    assert dry.output == world.output()
    ended = {each.step.node: each.step.status for each in dry.steps if each.step.scope == ROOT}
    words = {"SUCCESS": "completed", "FAILED": "failed", "TIMED_OUT": "timed_out"}
    for name, outcome in world.outcomes().items():
        if outcome is not None:
            assert ended[name] == words.get(outcome, outcome.lower()), name


def test_a_plan_with_a_failure_that_goes_on_differs_only_where_it_does() -> None:
    flow = plan(step("a", on_error=CONTINUE), step("b"))
    fine, broken = played(flow), played(flow, Mocks(given={"a": [Mock(code="x")]}))
    assert [each.node for each in compare(fine, broken)] == ["a"]
