"""Warnings about approvals whose requester nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from permaflow.plan import Json
from pipeline import builtins
from pipeline.gateway.documents import check_document
from pipeline.settings import Settings

RECORD: dict[str, Json] = {"object": "orders", "event": "created"}
MANUAL = {"id": "hand", "type": "trigger_manual", "config": {}}


def graph(*triggers: dict[str, Any], **config: Json) -> Json:
    ask = {"id": "ask", "type": "logic_approval", "config": {"assignees": ["ana"], **config}}
    edges = [
        {"id": f"e{n}", "source": each["id"], "target": "ask"} for n, each in enumerate(triggers)
    ]
    return {"nodes": [*triggers, ask], "edges": edges}


def trigger(kind: str, **config: Json) -> dict[str, Any]:
    return {"id": "t", "type": f"trigger_{kind}", "config": config}


def warned(document: Json) -> list[tuple[str, str]]:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    checked = check_document(document, builtins.task_types(settings))
    assert not checked.problems, checked.problems
    return [(each.pointer, each.code) for each in checked.warnings]


@pytest.mark.parametrize(
    "strange",
    [
        trigger("record", **RECORD),
        trigger("webhook", verification="none"),
        trigger("schedule", cron="0 9 * * *"),
    ],
)
def test_an_approval_in_a_run_that_nobody_starts_needs_a_requester(strange: dict[str, Any]) -> None:
    assert warned(graph(strange)) == [("/nodes/1", "unknown_requester")]
    assert warned(graph(MANUAL, strange)) == [("/nodes/2", "unknown_requester")]
    assert warned(graph(strange, requester="{{trigger.record.created_by}}")) == []
    assert warned(graph(strange, self_approval=True)) == []


def test_who_starts_a_run_by_hand_is_known() -> None:
    assert warned(graph(MANUAL)) == []


def test_the_warning_names_the_trigger_and_what_to_write() -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    document = graph(trigger("record", **RECORD))
    (warning,) = check_document(document, builtins.task_types(settings)).warnings
    assert "`trigger_record`" in warning.message
    assert "`requester`" in warning.message
    assert "`self_approval: true`" in warning.message


def test_the_place_in_a_dag_is_that_of_the_task() -> None:
    task = {"name": "ask", "type": "APPROVAL", "arguments": [{"assignees": ["ana"]}]}
    document = {
        "triggers": [{"type": "trigger_record", "config": RECORD}],
        "dag": {"entrypoint": "ask", "exitpoints": ["ask"], "tasks": [task]},
    }
    assert warned(document) == [("/dag/tasks/0", "unknown_requester")]


@pytest.mark.parametrize("requester", [{}, {"requester": "{{trigger.record.created_by}}"}])
def test_an_approval_with_several_templates_is_looked_at_like_any_other(
    requester: dict[str, Json],
) -> None:
    texts = {"title": "{{trigger.record.id}} of {{trigger.record.customer}}"}
    document = graph(trigger("record", **RECORD), **texts, **requester)
    assert bool(warned(document)) is not bool(requester)
