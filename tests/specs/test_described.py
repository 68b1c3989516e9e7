"""What catalogues say of triggers and logic is what the readers of documents accept."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from permaflow.plan import Json
from permaflow.task_types import TaskTypeRegistry
from specs.described import SHAPES
from specs.dialects import compile_document
from specs.triggers import KINDS
from specs.work import INLINE

CONDITION = {"field": "trigger.amount", "op": "gt", "value": 1}
SOUND: dict[str, list[Any]] = {
    "trigger_record": [
        {"object": "order", "event": "created"},
        {"object": "order", "event": ["created", "deleted"], "conditions": []},
    ],
    "trigger_schedule": [{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin", "catchup": "last"}],
    "trigger_webhook": [{}, {"verification": "none"}, {"headers": ["x-github-event"]}],
    "trigger_manual": [{}, {"input_schema": {"type": "object"}}],
    "trigger_integration": [
        {"connection_id": "crm", "event": "contact.created", "params": {"list": 7}}
    ],
    "logic_condition": [{"conditions": [CONDITION]}, {"condition": CONDITION}],
    "logic_switch": [{"value": "{{trigger.state}}", "cases": ["a", "b"], "default": "other"}],
    "logic_loop": [{"items": "{{trigger.items}}"}, {"items": [1], "mode": "sequential"}],
    "logic_delay": [
        {"duration": "90s"},
        {"duration": 5},
        {"until": "2030-01-01T00:00:00Z"},
        {
            "until_field": {"object": "orders", "field": "state", "op": "eq", "value": "paid"},
            "timeout_seconds": 60,
            "on_timeout": "branch",
        },
    ],
    "logic_approval": [
        {},
        {"assignees": "{{trigger.owner}}", "quorum": "all", "veto": False},
        {
            "title": "Order {{trigger.id}}",
            "form": {"type": "object"},
            "assignees": ["ana", "group:finance"],
            "quorum": {"at_least": 2},
            "reminder": {"after": "1h", "every": "1d", "at_most": 3},
            "escalation": [{"after": "2d", "assignees": ["boss"]}],
            "timeout_seconds": 86400,
            "on_timeout": "reject",
            "on_reject": "branch",
            "delegation": True,
            "self_approval": True,
        },
    ],
    "logic_parallel": [{}],
    "logic_join": [{}],
    "meta_error": [{}],
    "meta_subworkflow": [
        {"workflow": "Bill", "input": {"a": 1}, "mode": "async"},
        {
            "workflow_id": "0190a0a0-0000-7000-8000-000000000000",
            "version": 2,
            "output": {"sum": "{{run.output.sum}}"},
        },
    ],
}
UNSOUND: dict[str, list[Any]] = {
    "trigger_record": [{"object": "order"}, {"event": "created"}, {"object": "o", "event": 5}],
    "trigger_schedule": [
        {},
        {"cron": 5},
        {"cron": "0 9 * * *", "catchup": "some"},
        {"cron": "0 9 * * *", "start_at": 5},
    ],
    "trigger_webhook": [{"headers": "x-id"}, {"headers": [5]}, {"verification": 5}],
    "trigger_integration": [{}, {"connection_id": "c"}, {"connection_id": "c", "event": 5}],
    "logic_switch": [{"value": 1}],
    "logic_loop": [{}, {"items": [], "mode": "sideways"}, {"items": [], "max_items": 0}],
    "logic_delay": [{"duration": {"a": 1}}, {"until_field": 5}, {"until_field": {"field": 5}}],
    "meta_subworkflow": [{"workflow": "x", "mode": "later"}, {"workflow": 5}],
    "logic_approval": [
        {"quorum": "most"},
        {"form": 5},
        {"on_timeout": "wait"},
        {"reminder": "daily"},
        {"delegation": "yes"},
    ],
}


def problems(type_name: str, config: Json) -> list[str]:
    """What the readers say of the config of a node of this type."""
    node = {"id": "n", "type": type_name, "config": config}
    start = {"id": "start", "type": "trigger_manual"}
    others = [] if type_name in KINDS else [start]
    edges = [{"id": "e", "source": "start", "target": "n"}] if others else []
    nodes = [*others, node]
    if type_name == "meta_error":
        loop = {"id": "l", "type": "logic_loop", "config": {"items": []}, "on_error": "goto:n"}
        nodes, edges = [start, loop, node], [{"id": "e", "source": "start", "target": "l"}]
    if type_name == "logic_loop":
        nodes.append({"id": "b", "type": "logic_parallel", "parentId": "n"})
    compiled = compile_document({"nodes": nodes, "edges": edges}, TaskTypeRegistry())
    return [problem.pointer for problem in compiled.problems if "/config" in problem.pointer]


def test_every_type_that_no_runner_does_is_described() -> None:
    missing = sorted({*KINDS, *INLINE} - SHAPES.keys())
    assert not missing, "add them to specs/described.py, and samples of their configs here"
    assert all(shape.label and shape.description and shape.icon for shape in SHAPES.values())


def test_every_described_type_has_samples() -> None:
    assert SHAPES.keys() - SOUND.keys() == set()


@pytest.mark.parametrize("type_name", SOUND)
def test_sound_configs_suit_the_schema_the_form_and_the_reader(type_name: str) -> None:
    form = SHAPES[type_name].config
    schema = form.model_json_schema()
    jsonschema_rs.meta.validate(schema)
    for config in SOUND[type_name]:
        assert jsonschema_rs.validator_for(schema).is_valid(config), config
        form.model_validate(config)
        assert problems(type_name, config) == [], config


@pytest.mark.parametrize("type_name", UNSOUND)
def test_unsound_configs_suit_none_of_them(type_name: str) -> None:
    schema = SHAPES[type_name].config.model_json_schema()
    for config in UNSOUND[type_name]:
        assert not jsonschema_rs.validator_for(schema).is_valid(config), config
        assert problems(type_name, config) != [], config
