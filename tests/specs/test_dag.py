from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from permaflow.plan import (
    CONTINUE,
    FAILURES,
    STOP,
    Always,
    And,
    Compiled,
    Condition,
    Goto,
    Json,
    Loop,
    Never,
    Node,
    Or,
    Pass,
    Ref,
    Task,
    TaskTypes,
    TriggerSpec,
)
from specs.dialects import compile_document
from specs.templates import render

# The block of the description, as it is written there but for its comments.
BLOCK = """
{
"name": "Description of the block",
"type": "NOTIFICATION",
"arguments": [
{
"recipient": "[email protected]"
},
{
"payload": {
"title": "Your request was approved!",
"description": "You changes to metadata at Atlan have been approved, check at <link>."
}
}
],
"depends": "auto-approval-block.SUCCESS || manual-approval-block.SUCCESS",
"status": "PENDING",
"updated_at": "<unix-timstamp>"
}
"""


def block(name: str, depends: str | None = None, **more: Json) -> dict[str, Any]:
    written: dict[str, Json] = {
        "name": name,
        "type": "FUNCTION",
        "arguments": [{"function_slug": name}],
        "status": "PENDING",
        **more,
    }
    return written if depends is None else {**written, "depends": depends}


def dag(*tasks: Json, entry: Json = "a", exits: Json = ("a",), **more: Json) -> dict[str, Any]:
    exits = list(exits) if isinstance(exits, tuple) else exits
    return {"dag": {"entrypoint": entry, "exitpoints": exits, "tasks": list(tasks)}, **more}


def compiled_of(document: Json, types: TaskTypes) -> Compiled:
    compiled = compile_document(document, types)
    assert compiled.problems == ()
    return compiled


def nodes_of(document: Json, types: TaskTypes) -> dict[str, Node]:
    plan = compiled_of(document, types).plan
    assert plan is not None
    return dict(plan.nodes)


def test_the_example_compiles(types_with_notices: TaskTypes) -> None:
    document = dag(
        block("first-block"),
        block("auto-approval-block", "first-block"),
        block("manual-approval-block", "auto-approval-block.FAILED"),
        json.loads(BLOCK),
        block("last-block-1", '"Description of the block".SUCCESS'),
        block("last-block-2", '"Description of the block".FAILED'),
        entry="first-block",
        exits=("last-block-1", "last-block-2"),
    )
    plan = compiled_of(document, types_with_notices).plan
    assert plan is not None
    assert plan.exits == ("last-block-1", "last-block-2")
    assert plan.nodes["first-block"].when == Always()
    assert plan.nodes["manual-approval-block"].when == Ref("auto-approval-block", FAILURES)
    node = plan.nodes["Description of the block"]
    assert node.when == Or((Ref("auto-approval-block"), Ref("manual-approval-block")))
    assert node.type == "action_notification"
    assert node.work == Task(
        "notification",
        {
            "recipient": "[email protected]",
            "payload": {
                "title": "Your request was approved!",
                "description": "You changes to metadata at Atlan have been approved, "
                "check at <link>.",
            },
        },
    )


def test_a_failure_is_an_outcome_and_stops_nothing(types: TaskTypes) -> None:
    nodes = nodes_of(
        dag(block("a"), block("b", "a", on_error="stop"), block("c", "a", on_error="goto:b")), types
    )
    assert nodes["a"].on_error == CONTINUE
    assert nodes["b"].on_error == STOP
    assert nodes["c"].on_error == Goto("b")


def test_options_of_a_block(types: TaskTypes) -> None:
    document = dag(
        block("a", timeout=30, retry={"max_retries": 2}, updated_at=1700000000), timeout_seconds=60
    )
    plan = compiled_of(document, types).plan
    assert plan is not None
    assert plan.timeout == timedelta(minutes=1)
    assert plan.nodes["a"].timeout == timedelta(seconds=30)
    assert plan.nodes["a"].retry.max_retries == 2


@pytest.mark.parametrize(
    ("block_type", "expected"),
    [
        ("HTTP", "action_http"),
        ("RECORD", "action_record"),
        ("FUNCTION", "code_function"),
        ("action_http", "action_http"),
        ("PARALLEL", "logic_parallel"),
        ("JOIN", "logic_join"),
    ],
)
def test_block_types_stand_for_task_types(block_type: str, expected: str, types: TaskTypes) -> None:
    arguments = [{"url": "https://x"}] if "http" in expected else []
    document = dag({"name": "a", "type": block_type, "arguments": arguments})
    assert nodes_of(document, types)["a"].type == expected


def test_arguments_are_put_together_and_may_hold_templates(types: TaskTypes) -> None:
    document = dag(
        {
            "name": "a",
            "type": "HTTP",
            "arguments": [{"url": "https://x/{{trigger.id}}"}, {"body": {"n": "{{run.id}}"}}],
        }
    )
    work = nodes_of(document, types)["a"].work
    assert isinstance(work, Task)
    context = {"trigger": {"id": 5}, "run": {"id": "r"}}
    assert render(work.config, context) == {"url": "https://x/5", "body": {"n": "r"}}


def test_branches_of_a_condition_and_a_switch(types: TaskTypes) -> None:
    condition = [{"condition": {"field": "trigger.a", "op": "gt", "value": 1}}]
    switch = [{"value": "{{trigger.kind}}"}, {"cases": ["gold", "old silver"]}]
    nodes = nodes_of(
        dag(
            {"name": "check", "type": "CONDITION", "arguments": condition},
            {"name": "route", "type": "SWITCH", "arguments": switch, "depends": "check.true"},
            block("x", "check.false || route.gold"),
            block("y", 'route."old silver"'),
            block("z", "route.default"),
            entry="check",
            exits=("x",),
        ),
        types,
    )
    assert nodes["x"].when == Or((Ref("check", port="false"), Ref("route", port="gold")))
    assert nodes["y"].when == Ref("route", port="old silver")
    assert nodes["z"].when == Ref("route", port="default")


def test_a_task_may_declare_ports(types: TaskTypes) -> None:
    nodes = nodes_of(dag(block("a", ports=["yes", "no"]), block("b", "a.yes")), types)
    assert nodes["b"].when == Ref("a", port="yes")


def test_the_body_of_a_loop(types: TaskTypes) -> None:
    nodes = nodes_of(
        dag(
            {"name": "each", "type": "LOOP", "arguments": [{"items": "{{trigger.rows}}"}]},
            block("one", parent="each"),
            block("two", "one && one.COMPLETED", parent="each"),
            block("after", "each"),
            entry="each",
            exits=("after",),
        ),
        types,
    )
    assert isinstance(nodes["each"].work, Loop)
    assert nodes["one"].scope == "each"
    assert nodes["one"].when == Always()
    assert isinstance(nodes["two"].when, And)
    assert nodes["after"].when == Ref("each")


def test_error_handlers(types: TaskTypes) -> None:
    nodes = nodes_of(
        dag(block("a", on_error="goto:oops"), {"name": "oops", "type": "meta_error"}), types
    )
    assert isinstance(nodes["oops"].work, Pass)
    assert nodes["oops"].when == Never()


def test_triggers_stand_beside_the_dag(types: TaskTypes) -> None:
    document = dag(
        block("a"),
        triggers=[
            {
                "type": "trigger_record",
                "config": {
                    "object": "orders",
                    "event": ["created", "updated"],
                    "conditions": [{"field": "amount", "op": "gt", "value": 100}],
                },
            },
            {
                "id": "nightly",
                "type": "trigger_schedule",
                "config": {"cron": "0 3 * * *", "timezone": "Europe/Rome"},
            },
        ],
    )
    assert compiled_of(document, types).triggers == (
        TriggerSpec(
            "trigger_1",
            "record",
            object="orders",
            events=frozenset({"created", "updated"}),
            conditions=(Condition(("amount",), "gt", 100),),
        ),
        TriggerSpec(
            "nightly", "schedule", settings={"cron": "0 3 * * *", "timezone": "Europe/Rome"}
        ),
    )


@pytest.mark.parametrize(
    ("document", "pointer", "said"),
    [
        ({"dag": 5}, "/dag", "must be an object"),
        (dag(block("a"), tasks=[]), "/tasks", "no field `tasks`"),
        (dag(), "/dag/tasks", "at least one task"),
        (dag(block("a"), entry="aa"), "/dag/entrypoint", "did you mean `a`"),
        (dag(block("a"), entry=None), "/dag", "`entrypoint` is missing"),
        (dag(block("a"), exits=["a", "b"]), "/dag/exitpoints/1", "no block `b`"),
        (dag(block("a"), exits=["a", "a"]), "/dag/exitpoints/1", "named twice"),
        (dag(block("a"), exits=[5]), "/dag/exitpoints/0", "a number"),
        (dag(block("a"), exits=[]), "/dag/exitpoints", "at least one block"),
        (dag(block("a"), exits=None), "/dag", "`exitpoints` is missing"),
        (dag(block("a"), 7), "/dag/tasks/1", "a number"),
        (dag(block("a"), block("a", "a")), "/dag/tasks/1/name", "also the name of task 0"),
        (dag(block("a", dependz="x")), "/dag/tasks/0/dependz", "did you mean `depends`"),
        (dag(block("a"), block("b")), "/dag/tasks/1", "`b` depends on nothing"),
        (dag(block("a"), block("b", "a"), block("c", "a.")), "/dag/tasks/2/depends", "too early"),
        (dag(block("a"), block("b", "c")), "/dag/tasks/1/depends", "no block `c`"),
        (dag(block("a"), block("b", "a.DONE")), "/dag/tasks/1/depends", "no status of `a`"),
        (
            dag(block("a"), block("b", "a.SUCCESS && a.FAILED")),
            "/dag/tasks/1/depends",
            "can never be true",
        ),
        (dag(block("a"), block("b", "a.SKIPPED")), "/dag/tasks/1/depends", "can never be true"),
        (
            dag(block("a", on_error="stop"), block("b", "a.FAILED")),
            "/dag/tasks/1/depends",
            "can never be true",
        ),
        (
            dag(block("a"), block("b", "d"), block("c", "b"), block("d", "c && a")),
            "/dag/tasks/1/depends",
            "b → c → d → b",
        ),
        (dag({"name": "a", "type": "MAGIC"}), "/dag/tasks/0/type", "no type `MAGIC`"),
        (dag({"name": "a", "type": "trigger_record"}), "/dag/tasks/0/type", "`triggers`"),
        (dag({"name": "a", "type": "HTTP"}), "/dag/tasks/0/arguments/url", "missing"),
        (
            dag({"name": "a", "type": "HTTP", "arguments": [{"x": 1}, {"url": 5}]}),
            "/dag/tasks/0/arguments/1/url",
            "must be a string",
        ),
        (
            dag({"name": "a", "type": "HTTP", "arguments": [{"url": "x"}, {"url": "y"}]}),
            "/dag/tasks/0/arguments/1/url",
            "given twice",
        ),
        (dag(block("a", arguments=[{"x": 1}, 5])), "/dag/tasks/0/arguments/1", "not a number"),
        (
            dag(block("a", arguments=[{"x": 1}, {"y": ["{{steps.q.output}}"]}])),
            "/dag/tasks/0/arguments/1/y/0",
            "does not exist",
        ),
        (dag(block("a", parent="b")), "/dag/tasks/0/parent", "no block `b`"),
        (
            dag(block("a"), triggers=[{"type": "trigger_recor"}]),
            "/triggers/0/type",
            "did you mean `trigger_record`",
        ),
        (
            dag(block("a"), triggers=[{"type": "trigger_manual", "id": "a"}]),
            "/triggers/0/id",
            "another trigger or block",
        ),
        (dag(block("a"), triggers=["x"]), "/triggers/0", "a string"),
    ],
)
def test_a_problem_has_a_place_and_says_what_to_do(
    document: Json, pointer: str, said: str, types: TaskTypes
) -> None:
    found = [p for p in compile_document(document, types).problems if p.pointer == pointer]
    assert [said in problem.message for problem in found] == [True]


def test_depends_cannot_reach_into_or_out_of_a_loop(types: TaskTypes) -> None:
    each = {"name": "each", "type": "LOOP", "arguments": [{"items": [1]}], "depends": "a"}
    document = dag(block("a"), each, block("in", "a", parent="each"), block("b", "in"))
    problems = compile_document(document, types).problems
    assert [(p.pointer, p.code) for p in problems] == [
        ("/dag/tasks/2/depends", "crosses_loop"),
        ("/dag/tasks/3/depends", "crosses_loop"),
    ]


def test_an_entrypoint_depends_on_nothing(types: TaskTypes) -> None:
    document = dag(block("a", "b"), block("b", "a"))
    found = {problem.code: problem for problem in compile_document(document, types).problems}
    assert found["bad_entrypoint"].pointer == "/dag/tasks/0/depends"
    assert found.keys() == {"bad_entrypoint", "cycle"}


def test_a_dag_may_have_2_000_tasks(types: TaskTypes) -> None:
    many = [block(f"b{i}", "a") for i in range(1_999)]
    assert compile_document(dag(block("a"), *many), types).problems == ()
    problems = compile_document(dag(block("a"), block("b", "a"), *many), types).problems
    assert (problems[0].pointer, problems[0].code) == ("/dag/tasks", "too_large")
