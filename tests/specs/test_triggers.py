from __future__ import annotations

from typing import Any

import pytest

from permaflow.plan import Condition, Json, TriggerSpec
from specs.reading import Report
from specs.triggers import read_trigger

DAILY = {"cron": "@daily"}
PUSH = {"connection_id": "c", "event": "push"}


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
        "webhook": {"verification": {"scheme": "hmac"}, "headers": ["X-Id"], "label": "Push"},
        "manual": {"input_schema": {"type": "object", "required": ["id"]}},
        "integration": {"connection_id": "c", "event": "push", "params": {"branch": "main"}},
        "schedule": {
            "cron": "*/5 * * * *",
            "timezone": "America/New_York",
            "catchup": "last",
            "start_at": "2030-01-31",
            "end_at": "2030-01-31T09:00:00+01:00",
            "input": {"a": 1},
            "description": "Now and then",
        },
    }[kind]
    assert read(kind, config) == (TriggerSpec("t", kind, settings=config), [])


@pytest.mark.parametrize(
    "cron",
    [
        "0 9 * * 1-5",
        "*/10 * * * * *",
        "0 0 L * *",
        "0 0 LW jan,JUL *",
        "0 0 * * MON#1",
        "0 0 * * 5L,sun",
        "5/15 8-18/2 1,15 * *",
        "0 0 29 2 *",
        "0 0 31 2 5",
        "@daily",
    ],
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
        ("schedule", {"cron": "* * * * ;"}, "/config/cron", "`;` is no weekday"),
        ("schedule", {"cron": "60 * * * *"}, "/config/cron", "`60` is no minute"),
        ("schedule", {"cron": "0 24 * * *"}, "/config/cron", "from 0 to 23"),
        ("schedule", {"cron": "0 0 0 * *"}, "/config/cron", "`0` is no day"),
        ("schedule", {"cron": "0 0 * 13 *"}, "/config/cron", "`13` is no month"),
        ("schedule", {"cron": "0 0 * * fri-mon"}, "/config/cron", "`fri-mon` is no weekday"),
        ("schedule", {"cron": "*/0 * * * *"}, "/config/cron", "`*/0` is no minute"),
        ("schedule", {"cron": "0 0 * * 1#6"}, "/config/cron", "`1#6` is no weekday"),
        ("schedule", {"cron": "0 0 30 feb *"}, "/config/cron", "30 never comes"),
        ("schedule", {"cron": "1," * 300 + "1 * * * *"}, "/config/cron", "five fields"),
        ("schedule", {**DAILY, "start": "2030-01-31"}, "/config/start", "did you mean `start_at`"),
        ("schedule", {**DAILY, "start_at": 5}, "/config/start_at", "must be a string"),
        ("schedule", {**DAILY, "start_at": "soon"}, "/config/start_at", "`2030-01-31T09:00:00Z`"),
        ("schedule", {**DAILY, "end_at": "2030-02-30"}, "/config/end_at", "is `2030-02-30`"),
        (
            "schedule",
            {**DAILY, "start_at": "2030-01-31", "end_at": "2030-01-31T00:00:00Z"},
            "/config/end_at",
            "later than `start_at`",
        ),
        ("webhook", {"verificaton": "none"}, "/config/verificaton", "did you mean `verification`"),
        ("webhook", {"verification": 5}, "/config/verification", "the name of a scheme"),
        ("webhook", {"headers": "x-id"}, "/config/headers", "must be an array"),
        ("webhook", {"headers": ["ok", "x id"]}, "/config/headers/1", "`x id` is no name"),
        ("webhook", {"headers": [5]}, "/config/headers/0", "a number is no name"),
        ("webhook", {"headers": ["a"] * 51}, "/config/headers", "At most 50"),
        ("webhook", {"input_schema": {"type": 5}}, "/config/input_schema", "no JSON Schema"),
        ("integration", {"event": "push"}, "/config", "`connection_id` is missing"),
        ("integration", {"connection_id": "c"}, "/config", "`event` is missing"),
        ("integration", {"connection_id": 5, "event": "e"}, "/config/connection_id", "a string"),
        ("integration", {"connection_id": "c", "event": ""}, "/config/event", "not be empty"),
        ("integration", {**PUSH, "event": "e" * 201}, "/config/event", "at most 200"),
        ("integration", {**PUSH, "params": []}, "/config/params", "must be an object"),
        ("integration", {**PUSH, "evnt": "x"}, "/config/evnt", "did you mean `event`"),
        ("integration", {**PUSH, "input_schema": 5}, "/config/input_schema", "a JSON Schema"),
        ("manual", {"input": {}}, "/config/input", "no field `input` here"),
        ("webhook", {"verification": "hmak"}, "/config/verification", "did you mean `hmac`"),
        ("webhook", {"verification": {}}, "/config/verification", "`scheme` is missing"),
        (
            "webhook",
            {"verification": {"scheme": "hmac", "haeder": "x"}},
            "/config/verification/haeder",
            "did you mean `header`",
        ),
        *(
            ("webhook", {"verification": {"scheme": "hmac", name: value}}, pointer, said)
            for name, value, pointer, said in (
                ("algorithm", "md5", "/config/verification/algorithm", "one of sha1"),
                ("encoding", 5, "/config/verification/encoding", "a string"),
                ("header", "x" * 101, "/config/verification/header", "at most 100"),
                ("prefix", "é", "/config/verification/prefix", "ASCII"),
                ("replay_window", 86_401, "/config/verification/replay_window", "86,400"),
                ("replay_window", 1.5, "/config/verification/replay_window", "whole number"),
            )
        ),
        (
            "record",
            {"object": "o", "event": "created", "events": ["deleted"]},
            "/config/events",
            "either `event` or `events`",
        ),
        ("record", {"object": "o", "event": "created", "source": 5}, "/config/source", "a string"),
        (
            "record",
            {"object": "o", "event": "created", "namespace": ["a"]},
            "/config/namespace",
            "a string",
        ),
        (
            "record",
            {"object": "o", "event": "created", "snapshot": "yes"},
            "/config/snapshot",
            "true or false",
        ),
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


def test_times_without_an_offset_are_of_the_zone_of_the_schedule() -> None:
    # 09:00 in Berlin is 08:00 in UTC, so the end comes first or not, by the zone alone.
    times = {"start_at": "2030-01-31T09:00:00", "end_at": "2030-01-31T08:30:00Z"}
    assert read("schedule", {**DAILY, **times, "timezone": "Europe/Berlin"})[1] == []
    [(pointer, _)] = read("schedule", {**DAILY, **times})[1]
    assert pointer == "/config/end_at"


def test_what_people_write_beside_a_record_trigger_is_no_setting() -> None:
    config = {"object": "o", "event": "created", "label": "New", "description": "…", "x-pos": 1}
    spec, problems = read("record", config)
    assert (problems, spec.settings) == ([], {"x-pos": 1})
