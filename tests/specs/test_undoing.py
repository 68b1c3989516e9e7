"""`compensate`, `on_unknown` and `on_failure`, in graphs and in dags."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from permaflow.plan import Json, OnUnknown, Plan, Problem, Task, TaskTypes
from specs.dialects import compile_document
from tests.specs.graphs import START, call, graph, loop, nodes_of, only_problem, passing

UNDO = {"type": "action_http", "config": {"url": "https://x/{{steps.a.output.id}}"}}
ARROW = "start -> a"


def plan_of(document: Json, types: TaskTypes) -> Plan:
    compiled = compile_document(document, types)
    assert compiled.problems == ()
    assert compiled.plan is not None
    return compiled.plan


def problem_of(step: dict[str, Any], types: TaskTypes, *more: Json, **options: Json) -> Problem:
    return only_problem(graph([START, step, *more], ARROW, **options), types)


def dag(task: dict[str, Any], **more: Json) -> Json:
    block = {"name": "a", "type": "HTTP", "arguments": [{"url": "https://x"}], **task}
    return {"dag": {"entrypoint": "a", "exitpoints": ["a"], "tasks": [block]}, **more}


def test_a_step_says_what_undoes_it(types: TaskTypes) -> None:
    retry = {"max_retries": 5, "backoff": "fixed"}
    undo = {**UNDO, "retry": retry, "timeout_seconds": 7, "when_unknown": False}
    found = nodes_of(graph([START, call("a", compensate=undo)], ARROW), types)["a"].compensation
    assert found is not None
    assert (found.type, found.work.stage, found.when_unknown) == ("action_http", "http", False)
    assert (found.retry.max_retries, found.retry.factor) == (5, 1.0)
    assert found.timeout == timedelta(seconds=7)


def test_a_compensation_is_told_of_unknown_outcomes_unless_it_says_otherwise(
    types: TaskTypes,
) -> None:
    found = nodes_of(graph([START, call("a", compensate=UNDO)], ARROW), types)["a"].compensation
    assert found is not None
    assert found.when_unknown


def test_a_step_in_a_loop_is_undone_with_its_item(types: TaskTypes) -> None:
    undo = {"type": "action_http", "config": {"url": "{{loop.item}}"}}
    document = graph([START, loop("l"), call("a", parentId="l", compensate=undo)], "start -> l")
    assert nodes_of(document, types)["a"].compensation is not None


@pytest.mark.parametrize(
    ("undo", "pointer", "code"),
    [
        ("release", "/nodes/1/compensate", "wrong_type"),
        ({"config": {}}, "/nodes/1/compensate", "missing_field"),
        ({"type": "action_htpp"}, "/nodes/1/compensate/type", "unknown_type"),
        ({"type": "logic_delay"}, "/nodes/1/compensate/type", "bad_type"),
        ({"type": "trigger_manual"}, "/nodes/1/compensate/type", "bad_type"),
        ({"type": "action_http"}, "/nodes/1/compensate/config/url", "missing_field"),
        ({**UNDO, "when": "never"}, "/nodes/1/compensate/when", "unknown_field"),
        ({**UNDO, "when_unknown": "no"}, "/nodes/1/compensate/when_unknown", "wrong_type"),
        ({**UNDO, "retry": {"max_retries": -1}}, "/nodes/1/compensate/retry/max_retries", ""),
        (
            {"type": "action_http", "config": {"url": "{{steps.b.output}}"}},
            "/nodes/1/compensate/config/url",
            "unknown_step",
        ),
        (
            {"type": "action_http", "config": {"url": "{{loop.item}}"}},
            "/nodes/1/compensate/config/url",
            "not_in_loop",
        ),
    ],
)
def test_what_is_wrong_with_a_compensation_is_told(
    undo: Json, pointer: str, code: str, types: TaskTypes
) -> None:
    problem = problem_of(call("a", compensate=undo), types)
    assert (problem.pointer, problem.code) == (pointer, code or "out_of_range")


def test_what_does_nothing_cannot_be_undone(types: TaskTypes) -> None:
    problem = problem_of(passing("a", compensate=UNDO), types)
    assert (problem.pointer, problem.code) == ("/nodes/1/compensate", "bad_value")


@pytest.mark.parametrize("choice", list(OnUnknown))
def test_a_step_says_what_becomes_of_an_unknown_outcome(
    choice: OnUnknown, types: TaskTypes
) -> None:
    document = graph([START, call("a", on_unknown=str(choice))], ARROW)
    assert nodes_of(document, types)["a"].on_unknown is choice


def test_an_unknown_outcome_is_retried_unless_the_step_says_otherwise(types: TaskTypes) -> None:
    assert nodes_of(graph([START, call("a")], ARROW), types)["a"].on_unknown is OnUnknown.RETRY


def test_what_becomes_of_an_unknown_outcome_is_one_of_three(types: TaskTypes) -> None:
    problem = problem_of(call("a", on_unknown="panic"), types)
    assert (problem.pointer, problem.code) == ("/nodes/1/on_unknown", "bad_value")
    problem = problem_of(passing("a", on_unknown="ask"), types)
    assert (problem.pointer, problem.code) == ("/nodes/1/on_unknown", "bad_value")


# --- on_failure -----------------------------------------------------------------------------------

TELL = {"type": "action_http", "config": {"url": "https://x", "body": "{{error.message}}"}}


def test_a_document_says_what_runs_when_a_run_fails(types: TaskTypes) -> None:
    tasks = [{**TELL, "id": "free"}, {**TELL, "retry": {}}]
    plan = plan_of(graph([START, call("a")], ARROW, on_failure=tasks), types)
    assert [(node.id, node.type) for node in plan.on_failure] == [
        ("free", "action_http"),
        ("on_failure_2", "action_http"),
    ]
    assert [node.retry.max_retries for node in plan.on_failure] == [0, 3]
    assert isinstance(plan.on_failure[0].work, Task)


def test_one_task_need_not_be_in_an_array(types: TaskTypes) -> None:
    plan = plan_of(graph([START, call("a")], ARROW, on_failure=TELL), types)
    assert [node.id for node in plan.on_failure] == ["on_failure_1"]


def test_they_see_the_steps_and_each_other(types: TaskTypes) -> None:
    seen = {"type": "action_http", "config": {"url": "{{steps.a.output}}{{steps.free.output}}"}}
    tasks = [{**TELL, "id": "free"}, seen]
    plan_of(graph([START, call("a")], ARROW, on_failure=tasks), types)


@pytest.mark.parametrize(
    ("tasks", "pointer", "code"),
    [
        ("tell", "/on_failure", "wrong_type"),
        ([TELL, 3], "/on_failure/1", "wrong_type"),
        ({"config": {}}, "/on_failure", "missing_field"),
        ([{"type": "logic_loop"}], "/on_failure/0/type", "bad_type"),
        ([{**TELL, "id": "a"}], "/on_failure/0/id", "duplicate"),
        ([{**TELL, "id": "x"}, {**TELL, "id": "x"}], "/on_failure/1/id", "duplicate"),
        ([{**TELL, "id": "a/b"}], "/on_failure/0/id", "bad_id"),
        ([{**TELL, "on_error": "stop"}], "/on_failure/0/on_error", "unknown_field"),
        ([TELL] * 21, "/on_failure", "too_large"),
        (
            {"type": "action_http", "config": {"url": "{{steps.lost.output}}"}},
            "/on_failure/config/url",
            "unknown_step",
        ),
    ],
)
def test_what_is_wrong_with_on_failure_is_told(
    tasks: Json, pointer: str, code: str, types: TaskTypes
) -> None:
    problem = problem_of(call("a"), types, on_failure=tasks)
    assert (problem.pointer, problem.code) == (pointer, code)


# --- dags -----------------------------------------------------------------------------------------


def test_a_dag_says_it_in_its_own_words(types: TaskTypes) -> None:
    undo = {"type": "HTTP", "arguments": [{"url": "https://y"}], "timeout": 3}
    document = dag(
        {"compensate": undo, "on_unknown": "ask"},
        on_failure=[{"name": "tell", "type": "HTTP", "arguments": {"url": "https://z"}}],
    )
    plan = plan_of(document, types)
    found = plan.nodes["a"].compensation
    assert found is not None
    assert (found.type, found.timeout) == ("action_http", timedelta(seconds=3))
    assert plan.nodes["a"].on_unknown is OnUnknown.ASK
    assert [node.id for node in plan.on_failure] == ["tell"]


def test_pointers_lead_to_the_argument_of_a_dag(types: TaskTypes) -> None:
    undo = {"type": "HTTP", "arguments": [{"method": "POST"}, {"url": 3}]}
    problem = only_problem(dag({"compensate": undo}), types)
    assert problem.pointer == "/dag/tasks/0/compensate/arguments/1/url"
