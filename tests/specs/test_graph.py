from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from permaflow.errors import EvaluationError
from permaflow.plan import (
    ANY_RESULT,
    CONTINUE,
    FAILURES,
    STOP,
    Always,
    AtLeast,
    Branch,
    Compiled,
    Condition,
    Delay,
    Goto,
    Json,
    Loop,
    Never,
    Pass,
    Ref,
    Retry,
    Settled,
    Task,
    TaskTypes,
    Trigger,
    TriggerSpec,
)
from specs.dialects import compile_document
from specs.templates import render
from tests.specs.graphs import START, call, check, graph, loop, nodes_of, only_problem

# From the description of the graph dialect, letter by letter.
FIRST = """
{
"version": 1,
"nodes": [
{
"id": "trigger_1", "type": "trigger_record",
"config": { "object": "orders", "event": "created",
"conditions": [{ "field": "amount", "op": "gt", "value": 100 }] },
"on_error": "stop"
},
{
"id": "action_1", "type": "action_integration",
"config": { "connection_id": "conn_slack_123", "action_key": "send_message",
"params": { "channel": "#sales", "text": "New order: {{trigger.record.name}}" } },
"retry": { "max_retries": 3, "backoff": "exponential" },
"on_error": "continue", "timeout_seconds": 30
}
],
"edges": [
{ "id": "edge_1", "source": "trigger_1", "target": "action_1" }
]
}
"""
SECOND = """
{
    "nodes": [
      {"id": "trigger", "type": "trigger_record",
       "config": {"event": "created", "object": "orders"}},
      {"id": "validate", "type": "code_function",
       "config": {"function_slug": "validate-order"}},
      {"id": "notify", "type": "action_http",
       "config": {"url": "https://hooks.slack.com/...", "method": "POST",
                  "body": {"text": "New order: {{trigger.record.id}}"}}}
    ],
    "edges": [
      {"id": "e1", "source": "trigger", "target": "validate"},
      {"id": "e2", "source": "validate", "target": "notify"}
    ]
  }
"""

# --- the examples -------------------------------------------------------------------------------


def test_the_first_example_compiles(types: TaskTypes) -> None:
    compiled = compile_document(json.loads(FIRST), types)
    assert compiled.problems == ()
    assert compiled.triggers == (
        TriggerSpec(
            "trigger_1",
            "record",
            object="orders",
            events=frozenset({"created"}),
            conditions=(Condition(("amount",), "gt", 100),),
        ),
    )
    assert compiled.plan is not None
    trigger, action = compiled.plan.nodes.values()
    assert trigger.work == Trigger()
    assert trigger.when == Always()
    assert trigger.on_error == STOP
    assert action.when == Ref("trigger_1")
    assert action.retry == Retry(max_retries=3)
    assert action.on_error == CONTINUE
    assert action.timeout == timedelta(seconds=30)
    assert isinstance(action.work, Task)
    assert action.work.stage == "integration"
    context = {"trigger": {"record": {"name": "Ada"}}}
    assert render(action.work.config, context) == {
        "connection_id": "conn_slack_123",
        "action_key": "send_message",
        "params": {"channel": "#sales", "text": "New order: Ada"},
    }


def test_the_second_example_compiles_without_a_version(types: TaskTypes) -> None:
    nodes = nodes_of(json.loads(SECOND), types)
    assert list(nodes) == ["trigger", "validate", "notify"]
    assert nodes["validate"].work == Task("function", {"function_slug": "validate-order"})
    assert nodes["notify"].when == Ref("validate")


def test_what_react_flow_draws_with_is_ignored(types: TaskTypes) -> None:
    document = graph(
        [
            {
                **START,
                "position": {"x": 0, "y": 10.5},
                "data": {"label": "Start"},
                "measured": {"width": 100, "height": 40},
                "selected": False,
                "dragging": False,
            },
            call("a", position={"x": 1, "y": 2}, width=10, style={"color": "red"}, zIndex=1),
        ],
        viewport={"x": 0, "y": 0, "zoom": 1},
    )
    edge = {
        "id": "xy-edge__start-a",
        "source": "start",
        "target": "a",
        "sourceHandle": None,
        "targetHandle": None,
        "animated": True,
        "type": "smoothstep",
        "markerEnd": {"type": "arrow"},
    }
    document["edges"].append(edge)
    assert nodes_of(document, types)["a"].when == Ref("start")


# --- edges --------------------------------------------------------------------------------------


def test_a_failure_is_followed_only_with_on_error_continue(types: TaskTypes) -> None:
    document = graph(
        [START, call("a"), call("b", on_error="continue"), call("c"), call("d")],
        "start -> a",
        "a -> b",
        "b -> c",
        "a -> d",
    )
    nodes = nodes_of(document, types)
    assert nodes["b"].when == Ref("a")
    assert nodes["c"].when == Ref("b", ANY_RESULT)


def test_an_error_edge_is_taken_on_failure_and_the_others_on_success(types: TaskTypes) -> None:
    for on_error in ({}, {"on_error": "continue"}):
        document = graph(
            [START, call("a", **on_error), call("b"), call("sorry")],
            "start -> a",
            "a -> b",
            "a:error -> sorry",
        )
        nodes = nodes_of(document, types)
        assert nodes["a"].on_error == CONTINUE
        assert nodes["b"].when == Ref("a")
        assert nodes["sorry"].when == Ref("a", FAILURES)


def test_the_ways_out_of_a_condition(types: TaskTypes) -> None:
    document = graph(
        [START, check("c"), call("yes"), call("no"), call("also")],
        "start -> c",
        "c:true -> yes",
        "c:False -> no",
        "c -> also",
    )
    nodes = nodes_of(document, types)
    assert nodes["yes"].when == Ref("c", port="true")
    assert nodes["no"].when == Ref("c", port="false")
    assert nodes["also"].when == Ref("c", port="true")
    work = nodes["c"].work
    assert isinstance(work, Branch)
    assert work.default == "false"
    [(port, test)] = work.cases
    assert port == "true"
    assert test.evaluate({"trigger": {"record": {"a": 2}}}) is True
    assert test.evaluate({"trigger": {"record": {"a": 1}}}) is False


@pytest.mark.parametrize(
    "config",
    [
        {"field": "trigger.a", "op": "eq", "value": 1},
        {"conditions": [{"field": "trigger.a", "op": "eq", "value": 1}]},
        {"condition": {"all": [{"field": "trigger.a", "op": "eq", "value": 1}]}},
        {"expression": {"field": "trigger.a", "op": "eq", "value": 1}, "label": "Is it one?"},
    ],
)
def test_a_condition_may_be_written_in_several_ways(config: Json, types: TaskTypes) -> None:
    document = graph([START, check("c", config=config)], "start -> c")
    work = nodes_of(document, types)["c"].work
    assert isinstance(work, Branch)
    test = work.cases[0][1]
    assert (test.evaluate({"trigger": {"a": 1}}), test.evaluate({"trigger": {"a": 2}})) == (
        True,
        False,
    )


def test_a_task_may_declare_ports(types: TaskTypes) -> None:
    document = graph(
        [START, call("ask", ports=["yes", "no"]), call("a"), call("b"), call("c")],
        "start -> ask",
        "ask:yes -> a",
        "ask:no -> b",
        "ask -> c",
    )
    nodes = nodes_of(document, types)
    assert nodes["a"].when == Ref("ask", port="yes")
    assert nodes["b"].when == Ref("ask", port="no")
    assert nodes["c"].when == Ref("ask")
    document["edges"][1]["sourceHandle"] = "maybe"
    problem = only_problem(document, types)
    assert (problem.pointer, problem.code) == ("/edges/1/sourceHandle", "unknown_handle")


def test_handles_of_tasks_without_ports_only_say_where_a_line_is_drawn(types: TaskTypes) -> None:
    document = graph([START, call("a"), call("b")], "start:bottom -> a", "a:source-right -> b")
    nodes = nodes_of(document, types)
    assert nodes["a"].when == Ref("start")
    assert nodes["b"].when == Ref("a")


@pytest.mark.parametrize(
    ("config", "port"),
    [
        ({"value": "{{trigger.kind}}", "cases": ["gold", "silver"]}, "silver"),
        ({"value": "{{trigger.kind}}", "cases": ["gold"]}, "default"),
        ({"value": "{{trigger.kind}}", "cases": ["gold"], "default": "other"}, "other"),
        ({"field": "trigger.absent", "cases": ["gold"]}, "default"),
        ({"field": "trigger.count", "cases": [1, 2, 3]}, "2"),
        ({"field": "trigger.count", "cases": {"one": 1, "two": 2.0}}, "two"),
        ({"field": "trigger.kind", "cases": [{"name": "second", "value": "silver"}]}, "second"),
        (
            {
                "cases": [
                    {
                        "name": "many",
                        "condition": {"field": "trigger.count", "op": "gt", "value": 5},
                    },
                    {
                        "name": "few",
                        "condition": {"field": "trigger.count", "op": "gt", "value": 1},
                    },
                ]
            },
            "few",
        ),
    ],
)
def test_a_switch_takes_the_first_case_that_is_true(
    config: Json, port: str, types: TaskTypes
) -> None:
    switch = {"id": "s", "type": "logic_switch", "config": config}
    document = graph([START, switch, call("a")], "start -> s", f"s:{port} -> a")
    nodes = nodes_of(document, types)
    assert nodes["a"].when == Ref("s", port=port)
    work = nodes["s"].work
    assert isinstance(work, Branch)
    context = {"trigger": {"kind": "silver", "count": 2}}
    taken = next((name for name, test in work.cases if test.evaluate(context)), work.default)
    assert taken == port


@pytest.mark.parametrize(
    ("config", "pointer", "said"),
    [
        ({"value": 1, "cases": ["a", "a"]}, "/cases/1", "two cases `a`"),
        ({"value": 1, "cases": ["default"]}, "/cases/0", "two cases `default`"),
        ({"value": 1, "cases": []}, "/cases", "needs `cases`"),
        ({"value": 1, "cases": [None]}, "/cases/0", "`name` is missing"),
        ({"value": 1, "cases": [{"name": "a"}]}, "/cases/0", "`value` is missing"),
        ({"value": 1, "cases": ["{{trigger.a}}"]}, "/cases/0/value", "is fixed"),
        ({"cases": ["a"]}, "/cases/0/value", "no `value` to compare"),
        ({"value": 1, "field": "trigger.a", "cases": ["a"]}, "/value", "either `field`"),
        ({"field": "kind", "cases": ["a"]}, "/field", "it can look at trigger"),
        ({"value": 1, "cases": list(range(201))}, "/cases", "200 cases"),
    ],
)
def test_a_bad_switch_says_what_to_do(
    config: Json, pointer: str, said: str, types: TaskTypes
) -> None:
    switch = {"id": "s", "type": "logic_switch", "config": config}
    problems = compile_document(graph([START, switch], "start -> s"), types).problems
    assert (problems[0].pointer, said in problems[0].message) == (f"/nodes/1/config{pointer}", True)


# --- joins --------------------------------------------------------------------------------------

DIAMOND = ("start -> a", "start -> b", "a -> j", "b -> j")


def test_a_node_with_several_edges_waits_for_all_of_them(types: TaskTypes) -> None:
    for more in ({}, {"join": "all"}):
        document = graph([START, call("a"), call("b"), call("j", **more)], *DIAMOND)
        assert nodes_of(document, types)["j"].when == Settled((Ref("a"), Ref("b")))


@pytest.mark.parametrize(
    ("join", "count"),
    [("any", 1), ({"n_of_m": 2}, 2), ({"at_least": 1}, 1)],
)
def test_a_join_may_wait_for_some_and_cancels_the_rest(
    join: Json, count: int, types: TaskTypes
) -> None:
    document = graph([START, call("a"), call("b"), call("j", join=join)], *DIAMOND)
    node = nodes_of(document, types)["j"]
    assert node.when == AtLeast(count, (Ref("a"), Ref("b")))
    assert set(node.cancels) == {"a", "b"}


def test_the_join_of_a_join_node_may_stand_in_its_config(types: TaskTypes) -> None:
    for config in ({"join": {"at_least": 2}}, {"join": "n_of_m", "n": 2}):
        for kind in ("logic_join", "logic_parallel"):
            join = {"id": "j", "type": kind, "config": config}
            document = graph([START, call("a"), call("b"), join], *DIAMOND)
            node = nodes_of(document, types)["j"]
            assert node.work == Pass()
            assert node.when == AtLeast(2, (Ref("a"), Ref("b")))


def test_what_has_work_of_its_own_is_not_cancelled(types: TaskTypes) -> None:
    document = graph(
        [START, call("a"), call("b"), call("alert", join="any"), call("c"), call("other")],
        "start -> a",
        "start -> b",
        "start -> c",
        "a:error -> alert",
        "b:error -> alert",
        "c -> alert",
        "b -> other",
    )
    assert nodes_of(document, types)["alert"].cancels == ("c",)


def test_a_join_that_can_never_be_satisfied_is_a_problem(types: TaskTypes) -> None:
    document = graph([START, call("a"), call("b"), call("j", join={"n_of_m": 3})], *DIAMOND)
    problem = only_problem(document, types)
    assert (problem.pointer, problem.code) == ("/nodes/3/join", "never_satisfied")
    assert "at most 2" in problem.message


def test_branches_that_exclude_each_other_count_once(types: TaskTypes) -> None:
    document = graph(
        [START, check("c"), call("j", join={"at_least": 2})],
        "start -> c",
        "c:true -> j",
        "c:false -> j",
    )
    assert only_problem(document, types).code == "never_satisfied"
    other = {"id": "other", "type": "trigger_manual"}
    document = graph([START, other, call("j", join={"at_least": 2})], "start -> j", "other -> j")
    assert only_problem(document, types).code == "never_satisfied"


def test_an_edge_without_a_port_counts_beside_one_with(types: TaskTypes) -> None:
    arrows = ("start -> ask", "ask:yes -> j", "ask:no -> j", "ask -> j")
    ask = call("ask", ports=["yes", "no"])
    fits = graph([START, ask, call("j", join={"at_least": 2})], *arrows)
    assert isinstance(nodes_of(fits, types)["j"].when, AtLeast)
    too_many = graph([START, ask, call("j", join={"at_least": 3})], *arrows)
    assert only_problem(too_many, types).code == "never_satisfied"


def test_joins_of_several_triggers_wait_for_the_one_that_fired(types: TaskTypes) -> None:
    other = {"id": "other", "type": "trigger_webhook", "config": {"verification": "none"}}
    document = graph([START, other, call("a")], "start -> a", "other -> a")
    compiled = compile_document(document, types)
    assert compiled.plan is not None
    assert compiled.plan.nodes["a"].when == Settled((Ref("start"), Ref("other")))
    assert compiled.triggers[1] == TriggerSpec(
        "other", "webhook", settings={"verification": "none"}
    )


# --- loops, delays, errors ----------------------------------------------------------------------


def test_the_body_of_a_loop_is_a_scope_of_its_own(types: TaskTypes) -> None:
    document = graph(
        [
            START,
            loop(),
            call("first", parentId="l", config={"url": "{{loop.item.url}}"}),
            call("second", parentId="l", config={"url": "{{steps.first.output}}/{{loop.index}}"}),
            call("after", config={"url": "{{steps.l.output}}"}),
        ],
        "start -> l",
        "first -> second",
        "l -> after",
    )
    compiled = compile_document(document, types)
    assert compiled.problems == ()
    assert compiled.plan is not None
    assert compiled.plan.members == {"": ("start", "l", "after"), "l": ("first", "second")}
    assert compiled.plan.leaves == {"": ("after",), "l": ("second",)}
    assert compiled.plan.nodes["first"].when == Always()
    assert compiled.plan.nodes["second"].when == Ref("first")


@pytest.mark.parametrize(
    ("config", "parallel", "stop"),
    [
        ({}, 1_000, True),
        ({"mode": "parallel"}, 1_000, True),
        ({"mode": "parallel", "concurrency": 5}, 5, True),
        ({"mode": "sequential", "stop_on_error": False}, 1, False),
    ],
)
def test_how_a_loop_runs(
    config: dict[str, Any], parallel: int, stop: bool, types: TaskTypes
) -> None:
    document = graph([START, loop(**config), call("a", parentId="l")], "start -> l")
    work = nodes_of(document, types)["l"].work
    assert isinstance(work, Loop)
    assert (work.parallel, work.stop_on_error, work.max_items) == (parallel, stop, 100_000)
    assert work.items.evaluate({"trigger": {"rows": [1, 2]}}) == [1, 2]


def test_loops_nest_and_see_what_is_around_them(types: TaskTypes) -> None:
    inner = {**loop("inner", items="{{loop.item.rows}}"), "parentId": "l"}
    document = graph(
        [
            START,
            call("before"),
            loop(),
            inner,
            call("a", parentId="inner", config={"url": "{{steps.before.output}}"}),
        ],
        "start -> before",
        "before -> l",
    )
    assert nodes_of(document, types)["a"].scope == "inner"


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({"duration": 90}, 90),
        ({"duration": "5m"}, 300),
        ({"duration_seconds": 1.5}, 1.5),
        ({"duration": "PT1H"}, 3600),
        ({"duration": "{{trigger.wait}}"}, 120),
    ],
)
def test_a_delay_of_a_duration(config: Json, seconds: float, types: TaskTypes) -> None:
    delay = {"id": "d", "type": "logic_delay", "config": config}
    work = nodes_of(graph([START, delay], "start -> d"), types)["d"].work
    assert isinstance(work, Delay)
    assert work.duration is not None
    assert work.duration.evaluate({"trigger": {"wait": "2m"}}) == seconds


def test_a_delay_until_a_time(types: TaskTypes) -> None:
    for until in ("2030-01-31T09:00:00+01:00", "{{trigger.at}}"):
        delay = {"id": "d", "type": "logic_delay", "config": {"until": until}}
        work = nodes_of(graph([START, delay], "start -> d"), types)["d"].work
        assert isinstance(work, Delay)
        assert work.until is not None
        context = {"trigger": {"at": "2030-01-31T08:00:00Z"}}
        assert work.until.evaluate(context) == "2030-01-31T08:00:00+00:00"
        if "{{" in until:
            with pytest.raises(EvaluationError):
                work.until.evaluate({"trigger": {"at": "soon"}})


@pytest.mark.parametrize(
    ("until", "utc"),
    [
        ("2030-01-31T09:00:00", "2030-01-31T08:00:00+00:00"),
        ("2030-07-31T09:00:00", "2030-07-31T07:00:00+00:00"),
        ("2030-07-31T09:00:00Z", "2030-07-31T09:00:00+00:00"),
        ("2030-03-31T02:30:00", "2030-03-31T01:30:00+00:00"),  # skipped: it is 03:30 then
        ("2030-10-27T02:30:00", "2030-10-27T00:30:00+00:00"),  # comes twice: the first
    ],
)
def test_a_time_without_an_offset_is_of_the_zone(until: str, utc: str, types: TaskTypes) -> None:
    for given in (until, "{{trigger.at}}"):
        config = {"until": given, "timezone": "Europe/Berlin"}
        delay = {"id": "d", "type": "logic_delay", "config": config}
        work = nodes_of(graph([START, delay], "start -> d"), types)["d"].work
        assert isinstance(work, Delay)
        assert work.until is not None
        assert work.until.evaluate({"trigger": {"at": until}}) == utc


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"until": "2030-01-31T09:00:00", "timezone": "Europe/Berlim"}, "bad_timezone"),
        ({"until": "2030-01-31T09:00:00", "timezone": "../etc/passwd"}, "bad_timezone"),
        ({"duration": 5, "timezone": "Europe/Berlin"}, "conflict"),
    ],
)
def test_a_zone_that_is_none_or_has_no_time_is_a_problem(
    config: Json, code: str, types: TaskTypes
) -> None:
    delay = {"id": "d", "type": "logic_delay", "config": config}
    found = compile_document(graph([START, delay], "start -> d"), types).problems
    assert [(each.pointer, each.code) for each in found] == [("/nodes/1/config/timezone", code)]


def test_an_error_handler_is_reached_only_by_goto(types: TaskTypes) -> None:
    handler = {"id": "oops", "type": "meta_error"}
    document = graph(
        [
            START,
            call("a", on_error="goto:oops"),
            handler,
            call("tell", config={"url": "{{error.message}}"}),
        ],
        "start -> a",
        "oops -> tell",
    )
    nodes = nodes_of(document, types)
    assert nodes["a"].on_error == Goto("oops")
    assert isinstance(nodes["oops"].work, Pass)
    assert nodes["oops"].when == Never()
    assert nodes["tell"].when == Ref("oops")


def test_goto_may_lead_back_and_has_a_limit(types: TaskTypes) -> None:
    document = graph(
        [START, call("a", max_visits=5), call("b", on_error="goto:a")], "start -> a", "a -> b"
    )
    nodes = nodes_of(document, types)
    assert nodes["a"].max_visits == 5
    assert nodes["a"].when == Ref("start")


def test_any_node_that_only_a_goto_names_waits_for_it(types: TaskTypes) -> None:
    document = graph([START, call("a", on_error="goto:fix"), call("fix")], "start -> a")
    assert nodes_of(document, types)["fix"].when == Never()


def test_without_triggers_the_nodes_without_edges_start(types: TaskTypes) -> None:
    document = graph([call("a"), call("b", on_error="goto:a"), call("c")], "a -> b")
    nodes = nodes_of(document, types)
    assert nodes["a"].when == Always()
    assert nodes["c"].when == Always()


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        ({"max_retries": 5}, Retry(5)),
        ({}, Retry(3)),
        ({"max_retries": 0}, Retry(0)),
        (
            {"max_retries": 2, "backoff": "fixed", "initial_delay_ms": 250},
            Retry(2, initial_delay=timedelta(milliseconds=250), factor=1.0),
        ),
        (
            {"max_retries": 2, "max_delay_ms": 4_000, "jitter": False},
            Retry(2, max_delay=timedelta(seconds=4), jitter=0.0),
        ),
        ({"max_retries": 1, "jitter": 0.5}, Retry(1, jitter=0.5)),
    ],
)
def test_retries(retry: Json, expected: Retry, types: TaskTypes) -> None:
    document = graph([START, call("a", retry=retry)], "start -> a")
    assert nodes_of(document, types)["a"].retry == expected


def test_a_workflow_may_have_a_timeout(types: TaskTypes) -> None:
    compiled = compile_document(graph([START], timeout_seconds=3600), types)
    assert compiled.plan is not None
    assert compiled.plan.timeout == timedelta(hours=1)


def test_compiling_the_same_document_twice_gives_equal_plans(types: TaskTypes) -> None:
    def compiled() -> Compiled:
        return compile_document(json.loads(FIRST), types)

    assert compiled() == compiled()
