"""Whatever is sent as a document: there is an answer, and a plan that is made holds together."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from permaflow.plan import Compiled, Json, TaskTypes, mentions
from specs.dialects import DIALECTS, compile_document

GRAPH: dict[str, Any] = {
    "version": 1,
    "timeout_seconds": 60,
    "nodes": [
        {
            "id": "t",
            "type": "trigger_record",
            "config": {
                "object": "o",
                "event": "created",
                "conditions": [{"field": "a", "op": "gt", "value": 1}],
            },
        },
        {"id": "s", "type": "trigger_schedule", "config": {"cron": "0 9 * * *"}},
        {
            "id": "c",
            "type": "logic_condition",
            "config": {"condition": {"any": [{"field": "trigger.a", "op": "eq", "value": 1}]}},
        },
        {
            "id": "w",
            "type": "logic_switch",
            "config": {"value": "{{trigger.k}}", "cases": ["x", {"name": "y", "value": 2}]},
        },
        {
            "id": "h",
            "type": "action_http",
            "config": {"url": "https://{{trigger.host}}", "body": ["{{steps.c.output?}}"]},
            "on_error": "goto:e",
            "retry": {"max_retries": 2, "backoff": "fixed", "jitter": 0.5},
            "timeout_seconds": 5,
        },
        {"id": "e", "type": "meta_error"},
        {"id": "d", "type": "logic_delay", "config": {"duration": "5m"}},
        {"id": "l", "type": "logic_loop", "config": {"items": "{{trigger.rows}}"}},
        {"id": "b", "type": "code_function", "parentId": "l", "config": {"x": "{{loop.item}}"}},
        {"id": "j", "type": "logic_join", "join": {"at_least": 2}},
    ],
    "edges": [
        {"id": "1", "source": "t", "target": "c"},
        {"id": "2", "source": "s", "target": "c"},
        {"id": "3", "source": "c", "target": "h", "sourceHandle": "true"},
        {"id": "4", "source": "c", "target": "w", "sourceHandle": "false"},
        {"id": "5", "source": "w", "target": "d", "sourceHandle": "x"},
        {"id": "6", "source": "w", "target": "l", "sourceHandle": "default"},
        {"id": "7", "source": "h", "target": "j"},
        {"id": "8", "source": "d", "target": "j"},
        {"id": "9", "source": "l", "target": "j"},
        {"id": "10", "source": "l", "target": "e2", "sourceHandle": "error"},
    ],
}
GRAPH["nodes"].append({"id": "e2", "type": "action_http", "config": {"url": "x"}})

DAG: dict[str, Any] = {
    "dag": {
        "entrypoint": "a",
        "exitpoints": ["z"],
        "tasks": [
            {"name": "a", "type": "HTTP", "arguments": [{"url": "x"}, {"b": "{{run.id}}"}]},
            {
                "name": "b",
                "type": "CONDITION",
                "arguments": [{"field": "steps.a.output", "op": "exists"}],
                "depends": "a.SUCCESS || a.FAILED",
            },
            {
                "name": "l",
                "type": "LOOP",
                "arguments": [{"items": [1, 2]}],
                "depends": "b.true && !a.FAILED",
            },
            {"name": "i", "type": "FUNCTION", "parent": "l", "on_error": "goto:i"},
            {"name": "z", "type": "FUNCTION", "depends": "(l || b.false) && a", "timeout": 5},
        ],
    },
    "triggers": [{"type": "trigger_manual", "config": {"input_schema": {"type": "object"}}}],
}

STEPS: dict[str, Any] = {
    "name": "n",
    "triggerEvent": "Deal.won",
    "conditions": [{"field": "a", "op": "gt", "value": 1}],
    "steps": [
        {"action": "Customer.create", "mapping": {"name": "deal.name", "b": [1, "Call"]}},
        {"id": "s", "action": "Customer.assign", "mapping": {"to": "round-robin"}, "when": "1 > 2"},
        {
            "action": "action_http",
            "mapping": {"url": '"https://" + step.0.name', "body": "{{= deal.a + 1 }}"},
            "flag": "f",
            "retryPolicy": {"maxAttempts": 2},
            "errorHandling": "Continue",
            "timeout": 5,
        },
    ],
    "fallback": '[{"action": "Ticket.create", "mapping": {"why": "error.message"}}]',
    "onFailure": [{"id": "told", "action": "Deal.update", "mapping": {"why": "error.message"}}],
    "retryPolicy": '{"maxAttempts": 3, "backoff": "fixed"}',
    "errorHandling": "Fallback",
    "timeout": 1000,
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["{{", "{{steps.a}}", "goto:a", "a && a", "error", "logic_loop", "l", "\0"])
    | st.sampled_from(["deal.a", "deal.a >", "{{= 1 + }}", '"a" + step.0.b', "Note.close", "[{}]"])
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["nodes", "edges", "dag", "steps", "id", "type", "config", "action", "mapping", "a"]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, part in items:
        found += places(part, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, source: dict[str, Any]) -> Json:
    """A sound document with up to three places changed, dropped, doubled or swapped."""
    document = copy.deepcopy(source)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(places(document)))
        holder = document
        for key in where[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["change", "drop", "double", "swap"])):
            case "change":
                holder[where[-1]] = draw(anything)
            case "drop":
                del holder[where[-1]]
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[where[-1]]))
            case _:
                other = draw(st.sampled_from(places(document)))
                taken: Any = document
                for key in other:
                    taken = taken[key]
                holder[where[-1]] = copy.deepcopy(taken)
        if not places(document):
            break
    return document


def check(compiled: Compiled, document: Json) -> None:
    assert (compiled.plan is None) == bool(compiled.problems)
    for problem in compiled.problems:
        assert problem.code
        assert problem.message.endswith((".", "?", ")")), problem.message
        resolve(problem.pointer, document)
    if compiled.plan is None:
        return
    plan = compiled.plan
    assert set(plan.exits) <= plan.nodes.keys()
    for node in plan.nodes.values():
        around = {other.id for other in plan.nodes.values() if other.scope == node.scope}
        assert set(mentions(node.when)) <= around
        assert set(node.cancels) <= around - {node.id}
        assert node.scope == "" or node.scope in plan.nodes
    for names in plan.members.values():
        assert any(not mentions(plan.nodes[name].when) for name in names)


def resolve(pointer: str, document: Json) -> None:
    """A pointer leads somewhere, or to a member that is missing where it ought to be."""
    here = document
    parts = pointer.split("/")[1:]
    for at, part in enumerate(parts):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and name in here:
            here = here[name]
        elif isinstance(here, list) and name.isdigit() and int(name) < len(here):
            here = here[int(name)]
        else:
            assert at >= len(parts) - 2, pointer
            return


@given(anything)
def test_any_json_has_an_answer(document: Json) -> None:
    class NoTypes:
        def names(self) -> list[str]:
            return []

        def stage(self, type_name: str) -> str:
            raise AssertionError(type_name)

        def verbatim(self, type_name: str) -> tuple[str, ...]:
            return ()

        def config_problems(self, type_name: str, config: Json) -> list[Any]:
            raise AssertionError(type_name)

    check(compile_document(document, NoTypes()), document)
    for dialect in DIALECTS:
        dialect.recognises(document)
        assert dialect.compile(document, NoTypes()).plan is None or isinstance(document, dict)


def test_the_documents_that_are_mutated_are_sound(types: TaskTypes) -> None:
    for document in (GRAPH, DAG, STEPS):
        compiled = compile_document(document, types)
        assert compiled.problems == ()
        check(compiled, document)


many = settings(
    max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@many
@given(document=mutated(GRAPH) | mutated(DAG) | mutated(STEPS))
def test_mutated_documents_have_an_answer(document: Json, types: TaskTypes) -> None:
    before = repr(document)
    check(compile_document(document, types), document)
    assert repr(document) == before


def test_large_documents_compile_in_time(types: TaskTypes) -> None:
    seconds = fastest(lambda: compile_document(large(2_000), types))
    assert seconds < 0.4
    assert fastest(lambda: compile_document(large(30), types)) < 0.006


def large(size: int) -> Json:
    nodes: list[Json] = [{"id": "n0", "type": "trigger_manual"}]
    edges = []
    for number in range(1, size):
        body = {"text": "Order {{trigger.record.id}}", "rows": [1, 2, "{{steps.n0.output?}}"]}
        config = {"url": "https://example.com", "body": body}
        nodes.append({"id": f"n{number}", "type": "action_http", "config": config})
        edges.append({"id": f"e{number}", "source": f"n{number - 1}", "target": f"n{number}"})
    return json.loads(json.dumps({"nodes": nodes, "edges": edges}))


def fastest(work: Callable[[], Compiled]) -> float:
    best = 60.0
    for _ in range(5):
        begun = time.process_time()
        assert work().problems == ()
        best = min(best, time.process_time() - begun)
    return best
