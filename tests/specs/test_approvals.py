"""Approvals as documents have them: every option, and what follows which port."""

from __future__ import annotations

from typing import Any

import pytest

from permaflow.errors import EvaluationError
from permaflow.plan import FAILURES, TAKEN, Json, Or, Plan, Question, Ref
from pipeline.core.approval import read_terms
from specs.dialects import compile_document
from tests.specs.conftest import FewTypes
from tests.specs.graphs import only_problem


def graph(config: Json, *edges: str, **more: Json) -> Json:
    """A trigger, the approval `ask`, and what edges lead to; `ask:rejected>no`."""
    names = sorted({edge.partition(">")[2] for edge in edges}) or ["yes"]
    written = [{"id": "e", "source": "t", "target": "ask"}]
    for number, edge in enumerate(edges or ("ask>yes",)):
        source, _, target = edge.partition(">")
        name, _, handle = source.partition(":")
        written.append({"id": f"e{number}", "source": name, "target": target})
        if handle:
            written[-1]["sourceHandle"] = handle
    return {
        "nodes": [
            {"id": "t", "type": "trigger_manual"},
            {"id": "ask", "type": "logic_approval", "config": config, **more},
            *({"id": name, "type": "logic_parallel"} for name in names),
        ],
        "edges": written,
    }


def plan_of(document: Json, types: FewTypes) -> Plan:
    compiled = compile_document(document, types)
    assert compiled.plan is not None, compiled.problems
    return compiled.plan


def terms_of(config: Json, types: FewTypes, trigger: Json = None) -> dict[str, Any]:
    question = plan_of(graph(config), types).nodes["ask"].work
    assert isinstance(question, Question)
    assert question.kind == "approval"
    found: dict[str, Any] = question.config.evaluate({"trigger": trigger or {}, "steps": {}})
    read_terms(found)
    return found


# --- options ---


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        ({"title": "Order {{trigger.id}}"}, "title", "Order 7"),
        ({"label": "Check"}, "title", "Check"),
        ({"title": "{{trigger.id}}"}, "title", "7"),
        ({"description": "{{trigger.none?}}"}, "description", ""),
        ({"data": {"total": "{{trigger.id}}"}}, "data", {"total": 7}),
        ({"requester": "{{trigger.who}}"}, "requester", "ana"),
        ({"form": {"type": "object"}}, "form", {"type": "object"}),
        ({}, "to_all", True),
        ({"assignees": "ana"}, "to_all", False),
        ({"assignees": "ana"}, "users", ["ana"]),
        ({"assignees": ["ana", "group:x", "ana"]}, "users", ["ana"]),
        ({"assignees": ["ana", "group:x"]}, "groups", ["x"]),
        ({"assignees": [{"user": "group:odd"}, {"group": "y"}]}, "users", ["group:odd"]),
        ({"assignees": "{{trigger.people}}"}, "users", ["bob", "carl"]),
        ({"assignees": ["{{trigger.who}}"]}, "users", ["ana"]),
        ({}, "need", 1),
        ({"quorum": "any"}, "veto", True),
        ({"assignees": ["a", "b"], "quorum": "all"}, "need", None),
        ({"quorum": {"at_least": 2}}, "need", 2),
        ({"quorum": 2}, "veto", False),
        ({"quorum": 2, "veto": True}, "veto", True),
        ({"reminder": {"after": "1h"}}, "due", 0),
        (
            {"reminder": {"every": "1d", "at_most": 2}},
            "reminder",
            {"after": 86400, "every": 86400, "at_most": 2},
        ),
        (
            {"assignees": "ana", "escalation": [{"after": 60, "assignees": "{{trigger.who}}"}]},
            "escalation",
            [{"after": 60, "users": ["ana"], "groups": []}],
        ),
        ({"delegation": True}, "delegation", True),
        ({}, "delegation", False),
        ({"self_approval": True}, "self_approval", True),
        ({}, "self_approval", False),
        ({"timeout_seconds": 60}, "timeout", 60),
    ],
)
def test_every_option_reaches_the_terms(
    config: Json, name: str, value: Json, types: FewTypes
) -> None:
    trigger = {"id": 7, "who": "ana", "people": ["bob", "carl"]}
    assert terms_of(config, types, trigger)[name] == value


@pytest.mark.parametrize("value", [[], "", None, [""], [5], {"user": ""}, ["group:"], [["ana"]]])
def test_a_template_that_names_nobody_opens_the_door_to_nobody(
    value: Json, types: FewTypes
) -> None:
    with pytest.raises(EvaluationError, match="`assignees`"):
        terms_of({"assignees": "{{trigger.who}}"}, types, {"who": value})


@pytest.mark.parametrize(
    ("config", "pointer", "said"),
    [
        ({"asignees": []}, "/asignees", "did you mean `assignees`"),
        ({"assignees": []}, "/assignees", "empty"),
        ({"assignees": [5]}, "/assignees", "names nobody"),
        ({"quorum": "most"}, "/quorum", "must be"),
        ({"quorum": {"at_least": 0}}, "/quorum", "must be"),
        ({"quorum": True}, "/quorum", "must be"),
        ({"quorum": "all"}, "/quorum", "needs `assignees`"),
        ({"assignees": ["a", "b"], "quorum": 3}, "/quorum", "only 2 are asked"),
        ({"form": {"type": "nothing"}}, "/form", "no JSON Schema"),
        ({"form": {"$ref": "http://example.com/x"}}, "/form", "no JSON Schema"),
        ({"reminder": {}}, "/reminder", "`after` is missing"),
        ({"reminder": {"after": "soon"}}, "/reminder/after", "must be"),
        ({"reminder": {"every": 0.1}}, "/reminder/every", "a second apart"),
        ({"escalation": [{"after": 5, "assignees": "a"}]}, "/escalation", "Without `assignees`"),
        (
            {"assignees": "a", "escalation": [{"after": 5}]},
            "/escalation/0",
            "`assignees` is missing",
        ),
        (
            {
                "assignees": "a",
                "escalation": [{"after": 5, "assignees": "b"}, {"after": 1, "assignees": "c"}],
            },
            "/escalation/1/after",
            "order of their times",
        ),
        ({"title": "{{nowhere}}"}, "/title", "nowhere"),
    ],
)
def test_a_wrong_config_says_where_and_what_to_do(
    config: Json, pointer: str, said: str, types: FewTypes
) -> None:
    problem = only_problem(graph(config), types)
    assert problem.pointer == f"/nodes/1/config{pointer}"
    assert said in problem.message


# --- ports ---


def work_of(document: Json, types: FewTypes) -> tuple[Question, Any]:
    node = plan_of(document, types).nodes["ask"]
    assert isinstance(node.work, Question)
    return node.work, node.timeout


def test_an_edge_without_a_handle_means_approved(types: FewTypes) -> None:
    plan = plan_of(graph({}, "ask>yes", "ask:rejected>no"), types)
    assert plan.nodes["yes"].when == Ref("ask", TAKEN, "approved")
    assert plan.nodes["no"].when == Ref("ask", TAKEN, "rejected")


def test_with_continue_a_failure_goes_on_but_a_rejection_does_not(types: FewTypes) -> None:
    document = graph({}, "ask>yes", "ask:rejected>no", on_error="continue")
    when = plan_of(document, types).nodes["yes"].when
    assert when == Or((Ref("ask", TAKEN, "approved"), Ref("ask", FAILURES)))


def test_a_dag_depends_on_ports_and_its_bare_name_means_approved(types: FewTypes) -> None:
    blocks = [
        {"name": "ask", "type": "APPROVAL", "arguments": [{"assignees": ["ana"]}]},
        {"name": "yes", "type": "PARALLEL", "depends": "ask"},
        {"name": "both", "type": "PARALLEL", "depends": "ask.SUCCESS || ask.rejected"},
    ]
    dag = {"entrypoint": "ask", "exitpoints": ["both"], "tasks": blocks}
    plan = plan_of({"dag": dag}, types)
    assert plan.nodes["yes"].when == Ref("ask", TAKEN, "approved")
    assert plan.nodes["both"].when == Or(
        (Ref("ask", TAKEN, "approved"), Ref("ask", TAKEN, "rejected"))
    )
    work = plan.nodes["ask"].work
    assert isinstance(work, Question)
    assert work.config.on_reject == "branch"


@pytest.mark.parametrize(
    ("config", "edges", "on_reject"),
    [
        ({}, ("ask>yes",), "fail"),
        ({}, ("ask>yes", "ask:rejected>no"), "branch"),
        ({"on_reject": "branch"}, ("ask>yes",), "branch"),
        ({"on_reject": "fail"}, ("ask>yes", "ask:error>no"), "fail"),
    ],
)
def test_a_rejection_branches_if_something_follows_it(
    config: Json, edges: tuple[str, ...], on_reject: str, types: FewTypes
) -> None:
    assert work_of(graph(config, *edges), types)[0].config.on_reject == on_reject


@pytest.mark.parametrize(
    ("action", "edges", "port"),
    [
        (None, ("ask>yes",), None),
        (None, ("ask>yes", "ask:timed_out>late"), "timed_out"),
        ("fail", ("ask>yes",), None),
        ("branch", ("ask>yes",), "timed_out"),
        ("approve", ("ask>yes",), "approved"),
        ("reject", ("ask>yes",), None),
        ("reject", ("ask>yes", "ask:rejected>no"), "rejected"),
    ],
)
def test_a_timeout_leaves_through_its_port(
    action: str | None, edges: tuple[str, ...], port: str | None, types: FewTypes
) -> None:
    config = {"timeout_seconds": 60, **({"on_timeout": action} if action else {})}
    work, timeout = work_of(graph(config, *edges), types)
    assert (work.timeout_port, timeout.total_seconds()) == (port, 60)
    assert (work.timeout_output is None) is (port is None)


def test_the_timeout_may_stand_at_the_node(types: FewTypes) -> None:
    work, timeout = work_of(graph({"on_timeout": "approve"}, timeout_seconds=5), types)
    assert (timeout.total_seconds(), work.config.timeout) == (5, 5)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (graph({"timeout_seconds": 5}, timeout_seconds=5), "not both"),
        (graph({"on_timeout": "approve"}), "`timeout_seconds` is missing"),
        (graph({}, "ask:timed_out>late"), "`timeout_seconds` is missing"),
        (graph({"on_reject": "fail"}, "ask>yes", "ask:rejected>no"), "never leaves through"),
        (
            graph({"timeout_seconds": 5, "on_timeout": "fail"}, "ask>yes", "ask:timed_out>no"),
            "never leaves through",
        ),
        (graph({}, "ask:refused>no"), "`sourceHandle` is `refused`"),
    ],
)
def test_what_can_never_be_is_told(document: Json, said: str, types: FewTypes) -> None:
    assert said in only_problem(document, types).message
