"""Waits for a change and sub-workflows, as documents write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from permaflow.errors import EvaluationError
from permaflow.plan import Json, Node, Problem, Question
from permaflow.task_types import TaskTypeRegistry
from specs.dialects import compile_document
from specs.limits import Limits
from specs.subworkflows import map_output

CONDITION = {"object": "orders", "record_id": "1", "field": "status", "op": "eq", "value": "paid"}


def compiled(
    config: Json, handle: str | None = None, type_name: str = "logic_delay", **more: Json
) -> tuple[dict[str, Node], tuple[Problem, ...]]:
    edge = {"source": "n", "target": "next"} | ({"sourceHandle": handle} if handle else {})
    document = {
        "nodes": [
            {"id": "t", "type": "trigger_manual"},
            {"id": "n", "type": type_name, "config": config, **more},
            {"id": "next", "type": "logic_parallel"},
        ],
        "edges": [{"source": "t", "target": "n"}, edge],
    }
    found = compile_document(document, TaskTypeRegistry())
    return dict(found.plan.nodes) if found.plan else {}, found.problems


def question(nodes: dict[str, Node]) -> Question:
    work = nodes["n"].work
    assert isinstance(work, Question)
    return work


def test_what_follows_a_wait_follows_only_when_it_was_met() -> None:
    nodes, problems = compiled({"until_field": CONDITION, "timeout_seconds": 5})
    assert problems == ()
    assert nodes["next"].when.port == "met"  # type: ignore[union-attr]
    assert (question(nodes).timeout_port, nodes["n"].timeout) == (None, timedelta(seconds=5))


def test_a_timeout_that_something_follows_is_no_failure() -> None:
    nodes, problems = compiled({"until_field": CONDITION}, "timed_out", timeout_seconds=5)
    assert problems == ()
    assert question(nodes).timeout_port == "timed_out"
    assert nodes["next"].when.port == "timed_out"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "handle", "code"),
    [
        ({"until_field": CONDITION}, "timed_out", "missing_field"),
        (
            {"until_field": CONDITION, "timeout_seconds": 5, "on_timeout": "fail"},
            "timed_out",
            "never_taken",
        ),
        ({"until_field": CONDITION, "timeout_seconds": 5}, "late", "unknown_handle"),
        ({"until_field": CONDITION, "duration": 5}, None, "conflict"),
        ({"until_field": {**CONDITION, "op": "eqals"}}, None, "bad_value"),
        ({"until_field": {**CONDITION, "object": "{{trigger.object}}"}}, None, "bad_value"),
        ({"until_field": {**CONDITION, "conditions": []}}, None, "conflict"),
        ({"until_field": {"object": "orders", "conditions": []}}, None, "empty"),
        ({"until_field": {**CONDITION, "field": "trigger.record.status"}}, None, "bad_field"),
    ],
)
def test_what_is_wrong_with_a_wait_is_told(
    config: dict[str, Any], handle: str | None, code: str
) -> None:
    _, problems = compiled(config, handle)
    assert code in [problem.code for problem in problems]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({}, "missing_field"),
        ({"workflow": "a", "workflow_id": "0190a0a0-0000-7000-8000-000000000000"}, "conflict"),
        ({"workflow_id": "Bill"}, "bad_value"),
        ({"workflow": "a", "version": "newest"}, "bad_value"),
        ({"workflow": "a", "version": 0}, "out_of_range"),
        ({"workflow": "a", "output": "{{steps.n.output}}"}, "bad_template"),
        ({"workflow": "a", "mode": "async", "output": 1}, "conflict"),
        ({"workflow": "a", "inputs": {}}, "unknown_field"),
    ],
)
def test_what_is_wrong_with_a_sub_workflow_is_told(config: dict[str, Any], code: str) -> None:
    _, problems = compiled(config, type_name="meta_subworkflow")
    assert code in [problem.code for problem in problems]


def test_an_installation_may_lower_how_deep_sub_workflows_stand() -> None:
    nodes, _ = compiled({"workflow": "a"}, type_name="meta_subworkflow")
    node = Limits(depth=3, children=70)._node(nodes["n"])
    assert isinstance(node.work, Question)
    assert (node.work.config["max_depth"], node.work.config["max_children"]) == (3, 70)


def test_a_mapping_of_what_is_not_there_is_an_error() -> None:
    child = {"id": "x", "status": "completed", "output": {"a": 1}}
    assert map_output(b'"{{run.output.a}}"', child) == 1
    with pytest.raises(EvaluationError, match="leads nowhere"):
        map_output(b'"{{run.output.b}}"', child)
