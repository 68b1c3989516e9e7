from __future__ import annotations

import pytest

from permaflow.plan import Json, TaskTypes
from specs.dialects import compile_document
from tests.specs.graphs import START, call, check, graph, loop, only_problem, passing


@pytest.mark.parametrize(
    ("document", "pointer", "said"),
    [
        (graph([START], nods=[]), "/nods", "did you mean `nodes`"),
        (graph([START], version=2), "/version", "is 1"),
        (graph([START], timeout_seconds=-1), "/timeout_seconds", "must be from"),
        ({"edges": []}, "", "`nodes` is missing"),
        ({"nodes": [], "edges": []}, "/nodes", "at least one node"),
        ({"nodes": {}, "edges": []}, "/nodes", "must be an array"),
        (graph(["a"]), "/nodes/0", "a string"),
        (graph([{"id": "a"}]), "/nodes/0", "`type` is missing"),
        (graph([{**START, "id": 5}]), "/nodes/0/id", "must be a string"),
        (graph([{**START, "id": "a/b"}]), "/nodes/0/id", "cannot name a step"),
        (graph([{**START, "id": "a@1"}]), "/nodes/0/id", "does not end in `@` and a number"),
        (graph([START, START]), "/nodes/1/id", "also the id of node 0"),
        (graph([{"id": "a", "type": "action_htp"}]), "/nodes/0/type", "did you mean `action_http`"),
        (graph([{"id": "a", "type": "logic_agreement"}]), "/nodes/0/type", "There is no type"),
        (graph([{**START, "cofnig": {}}]), "/nodes/0/cofnig", "did you mean `config`"),
        (graph([call("a", config=[])]), "/nodes/0/config", "must be an object"),
        (graph([call("a", config={})]), "/nodes/0/config/url", "`url` is missing"),
        (graph([call("a", config={"url": 5})]), "/nodes/0/config/url", "must be a string"),
        (graph([call("a", on_error="halt")]), "/nodes/0/on_error", "it is `stop`"),
        (graph([call("a", on_error="goto:")]), "/nodes/0/on_error", "it is `stop`"),
        (graph([call("a", on_error="goto:b")]), "/nodes/0/on_error", "no step `b`"),
        (graph([call("a", timeout_seconds="30")]), "/nodes/0/timeout_seconds", "a number"),
        (graph([call("a", timeout_seconds=0)]), "/nodes/0/timeout_seconds", "must be from"),
        (graph([call("a", retry=3)]), "/nodes/0/retry", "an object"),
        (graph([call("a", retry={"max": 3})]), "/nodes/0/retry/max", "no field `max`"),
        (graph([call("a", retry={"backoff": "linear"})]), "/nodes/0/retry/backoff", "exponential"),
        (graph([call("a", ports=["x", "x"])]), "/nodes/0/ports/1", "unlike the others"),
        (graph([call("a", ports=["error"])]), "/nodes/0/ports/0", "other than `error`"),
        (graph([{**START, "ports": ["x"]}]), "/nodes/0/ports", "Only tasks"),
        (graph([call("a", max_visits=0)]), "/nodes/0/max_visits", "must be from 1"),
        (graph([call("a", join="some")]), "/nodes/0/join", '`"any"`'),
        (graph([call("a", join={"n_of_m": True})]), "/nodes/0/join", '`"any"`'),
        (graph([START, call("a")]), "/nodes/1", "Nothing leads to `a`"),
        (graph([{"id": "e", "type": "meta_error"}]), "/nodes/0", "goto:e"),
        (graph([START, call("a")], "start -> a", "strat -> a"), "/edges/1/source", "`start`"),
        (graph([START, call("a")], "start -> a", "start -> a"), "/edges/1", "another edge"),
        (graph([START, call("a")], "start -> a", "a -> start"), "/edges/1/target", "is a trigger"),
        (
            graph([START, call("a"), call("b")], "start -> a", "start:error -> b", "a -> b"),
            "/edges/1/sourceHandle",
            "cannot fail",
        ),
        (
            graph(
                [START, call("a", on_error="stop"), call("b"), call("c")],
                "start -> a",
                "a:error -> b",
                "a -> b",
                "a -> c",
            ),
            "/edges/1/sourceHandle",
            "on_error: stop",
        ),
        (
            graph([START, check("c"), call("a")], "start -> c", "c:tru -> a", "c -> a"),
            "/edges/1/sourceHandle",
            "did you mean `true`",
        ),
        (
            graph(
                [
                    START,
                    {"id": "s", "type": "logic_switch", "config": {"value": 1, "cases": [1]}},
                    call("a"),
                ],
                "start -> s",
                "s:1 -> a",
                "s -> a",
            ),
            "/edges/2",
            "the ways out of `s` are 1, default and error",
        ),
        (graph([START, loop()], "start -> l"), "/nodes/1", "has no body"),
        (
            graph([START, loop(), call("a", parentId="l")], "start -> l", "l -> a"),
            "/edges/1",
            "Remove this edge",
        ),
        (
            graph(
                [START, loop(), call("a", parentId="l"), call("b")],
                "start -> l",
                "l -> b",
                "a -> b",
            ),
            "/edges/2",
            "draw the edge from the loop",
        ),
        (
            graph([START, call("b"), call("a", parentId="b")], "start -> b", "start -> a"),
            "/nodes/2/parentId",
            "is no loop",
        ),
        (
            graph([START, call("b"), call("a", parentId="c")], "start -> b", "start -> a"),
            "/nodes/2/parentId",
            "no node `c`",
        ),
        (
            graph(
                [START, call("a", config={"url": "{{steps.b.output}}"}), call("bb")],
                "start -> a",
                "a -> bb",
            ),
            "/nodes/1/config/url",
            "speaks of the step `b`, which does not exist; did you mean `bb`",
        ),
        (
            graph([START, call("a", config={"url": "{{loop.item}}"})], "start -> a"),
            "/nodes/1/config/url",
            "only in the body of a loop",
        ),
        (
            graph(
                [
                    START,
                    loop(),
                    call("in", parentId="l"),
                    call("a", config={"url": "{{steps.in.output}}"}),
                ],
                "start -> l",
                "l -> a",
            ),
            "/nodes/3/config/url",
            "there is only `steps.l.output`",
        ),
        (
            graph([START, call("a", config={"url": "{{trigger.a"})], "start -> a"),
            "/nodes/1/config/url",
            "never closed",
        ),
        (
            graph([START, loop(items="x {{trigger.a}}"), call("a", parentId="l")], "start -> l"),
            "/nodes/1/config/items",
            "text around the template",
        ),
        (
            graph([START, loop(items=[0] * 100_001), call("a", parentId="l")], "start -> l"),
            "/nodes/1/config/items",
            "100,000 items",
        ),
        (
            graph([START, loop(concurrency=0), call("a", parentId="l")], "start -> l"),
            "/nodes/1/config/concurrency",
            "from 1",
        ),
        (
            graph(
                [START, {"id": "d", "type": "logic_delay", "config": {"duration": "soon"}}],
                "start -> d",
            ),
            "/nodes/1/config/duration",
            "`90s`",
        ),
        (
            graph([START, {"id": "d", "type": "logic_delay"}], "start -> d"),
            "/nodes/1/config",
            "`duration` is missing",
        ),
        (
            graph([START, passing("p", config={"join": "any"})], "start -> p"),
            "/nodes/1/config",
            "in which the branches meet",
        ),
        (
            graph(
                [
                    START,
                    call("a", on_error="goto:in"),
                    loop(),
                    call("in", parentId="l"),
                ],
                "start -> a",
                "a -> l",
            ),
            "/nodes/1/on_error",
            "a jump cannot enter or leave a loop",
        ),
        (
            graph([START, call("a", on_error="goto:start")], "start -> a"),
            "/nodes/1/on_error",
            "cannot be gone to",
        ),
    ],
)
def test_a_problem_has_a_place_and_says_what_to_do(
    document: Json, pointer: str, said: str, types: TaskTypes
) -> None:
    problem = only_problem(document, types)
    assert problem.pointer == pointer
    assert said in problem.message


def test_a_cycle_is_named(types: TaskTypes) -> None:
    document = graph(
        [START, call("a"), call("b"), call("c")], "start -> a", "a -> b", "b -> c", "c -> a"
    )
    problem = only_problem(document, types)
    assert problem.code == "cycle"
    assert problem.pointer == "/nodes/1"
    assert "a → b → c → a" in problem.message


def test_loops_cannot_hold_each_other(types: TaskTypes) -> None:
    document = graph([{**loop("a"), "parentId": "b"}, {**loop("b"), "parentId": "a"}])
    codes = {problem.code for problem in compile_document(document, types).problems}
    assert "cycle" in codes


def test_all_problems_are_told_at_once(types: TaskTypes) -> None:
    document = graph(
        [
            START,
            {"id": "a", "type": "action_htp", "retyr": {}},
            call("b", config={}, on_error="goto:q", timeout_seconds="1"),
            {"id": 7, "type": "logic_delay", "config": {"duration": "x"}},
        ],
        "start -> a",
        "a -> zz",
    )
    pointers = [problem.pointer for problem in compile_document(document, types).problems]
    assert pointers == [
        "/nodes/1/retyr",
        "/nodes/1/type",
        "/nodes/2/config/url",
        "/nodes/2/timeout_seconds",
        "/nodes/3/id",
        "/nodes/3/config/duration",
        "/edges/1/target",
        "/nodes/2/on_error",
        "/nodes/2",
    ]


def test_of_very_many_problems_only_the_first_are_listed(types: TaskTypes) -> None:
    compiled = compile_document(graph([{"id": f"a{i}", "type": "x"} for i in range(500)]), types)
    assert len(compiled.problems) == 201
    assert compiled.problems[-1].message == "300 more problems are not listed."


@pytest.mark.parametrize(
    ("document", "pointer", "said"),
    [
        (graph([passing(str(i)) for i in range(2_001)]), "/nodes", "2,000 nodes"),
        (graph([passing("a")], *["a -> a"] * 10_001), "/edges", "10,000 edges"),
        (graph([call("a", config={"url": "x", "n": 2**64})]), "/nodes/0/config/n", "64 bits"),
        (graph([call("a\0")]), "/nodes/0/id", "NUL"),
        (
            graph([START] + [{"id": f"t{i}", "type": "trigger_manual"} for i in range(100)]),
            "/nodes",
            "100",
        ),
    ],
)
def test_limits(document: Json, pointer: str, said: str, types: TaskTypes) -> None:
    problem = only_problem(document, types)
    assert problem.pointer == pointer
    assert said in problem.message


def test_what_no_dialect_recognises_is_told_which_shapes_exist(types: TaskTypes) -> None:
    for document in (None, [], "x", {}, {"tasks": []}):
        problem = only_problem(document, types)
        assert '"nodes"' in problem.message
        assert '"dag"' in problem.message
