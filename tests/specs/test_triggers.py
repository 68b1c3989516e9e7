from __future__ import annotations

from typing import Any

import pytest

from permaflow.plan import Condition, Json, TriggerSpec
from specs.reading import Report
from specs.triggers import read_trigger


def read(kind: str, config: dict[str, Any]) -> tuple[TriggerSpec, list[tuple[str, str]]]:
    report = Report()
    spec = read_trigger(f"trigger_{kind}", "t", config, "/config", report)
    return spec, [(problem.pointer, problem.message) for problem in report.problems]


@pytest.mark.parametrize(
    ("config", "events"),
    [
        ({"event": "created"}, {"created"}),
        ({"event": ["created", "deleted"]}, {"created", "deleted"}),
        ({"events": ["updated"]}, {"updated"}),
    ],
)
def test_the_events_of_a_record_trigger(config: dict[str, Any], events: set[str]) -> None:
    spec, problems = read("record", {"object": "orders", **config})
    assert problems == []
    assert spec == TriggerSpec("t", "record", object="orders", events=frozenset(events))


def test_what_else_a_record_trigger_says_is_kept() -> None:
    conditions = [
        {"field": "address.city", "op": "eq", "value": "Rome"},
        {"field": "status", "op": "changed_to", "value": "paid"},
    ]
    config = {
        "object": "orders",
        "event": "updated",
        "conditions": conditions,
        "on_unknown": "fire",
        "source": "crm",
    }
    spec, problems = read("record", config)
    assert problems == []
    assert spec.settings == {"on_unknown": "fire", "source": "crm"}
    assert spec.conditions == (
        Condition(("address", "city"), "eq", "Rome"),
        Condition(("status",), "changed_to", "paid"),
    )


@pytest.mark.parametrize("kind", ["webhook", "manual", "integration", "schedule"])
def test_the_settings_of_other_triggers_are_kept_as_written(kind: str) -> None:
    config: dict[str, Any] = {
        "webhook": {"verification": {"type": "hmac", "secret": "ref"}, "anything": 1},
        "manual": {"input_schema": {"type": "object", "required": ["id"]}},
        "integration": {"connection_id": "c", "event": "push"},
        "schedule": {"cron": "*/5 * * * *", "timezone": "America/New_York", "catchup": "last"},
    }[kind]
    assert read(kind, config) == (TriggerSpec("t", kind, settings=config), [])


@pytest.mark.parametrize(
    "cron", ["0 9 * * 1-5", "*/10 * * * * *", "0 0 L * *", "0 0 * * MON#1", "@daily"]
)
def test_cron_expressions(cron: str) -> None:
    assert read("schedule", {"cron": cron})[1] == []


@pytest.mark.parametrize(
    ("kind", "config", "pointer", "said"),
    [
        ("record", {"event": "created"}, "/config", "`object` is missing"),
        ("record", {"object": "o"}, "/config", "`event` is missing"),
        ("record", {"object": "o", "event": "create"}, "/config/event", "did you mean `created`"),
        ("record", {"object": "o", "event": [5]}, "/config/event", "a number is no event"),
        ("record", {"object": "o", "event": []}, "/config/event", "at least one"),
        ("record", {"object": "o", "event": "created", "x": 1}, "/config/x", "no field `x`"),
        (
            "record",
            {"object": "o", "event": "created", "conditions": [{"field": "a", "op": "eq"}]},
            "/config/conditions/0",
            "`value` is missing",
        ),
        (
            "record",
            {"object": "o", "event": "created", "conditions": [1] * 101},
            "/config/conditions",
            "100",
        ),
        ("schedule", {}, "/config", "`cron` is missing"),
        ("schedule", {"cron": "often"}, "/config/cron", "five fields"),
        ("schedule", {"cron": "* * * *"}, "/config/cron", "five fields"),
        ("schedule", {"cron": "* * * * ;"}, "/config/cron", "five fields"),
        (
            "schedule",
            {"cron": "* * * * *", "timezone": "Europe/Berln"},
            "/config/timezone",
            "did you mean `Europe/Berlin`",
        ),
        ("manual", {"input_schema": {"type": "objekt"}}, "/config/input_schema", "no JSON Schema"),
        ("manual", {"input_schema": 5}, "/config/input_schema", "must be a JSON Schema"),
    ],
)
def test_a_bad_trigger_says_what_to_do(
    kind: str, config: dict[str, Json], pointer: str, said: str
) -> None:
    [problem] = read(kind, config)[1]
    assert problem[0] == pointer
    assert said in problem[1]
