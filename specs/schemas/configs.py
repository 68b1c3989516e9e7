"""Schemas of the configs of triggers and of what the orchestrator works off by itself."""

from __future__ import annotations

from collections.abc import Mapping

from permaflow.changes import EVENTS
from specs.logic import MAX_CASES, MAX_ITEMS, MAX_PARALLEL
from specs.schemas.parts import (
    ANYTHING,
    COMPARISON,
    TEST,
    TEXT,
    Schema,
    choice,
    listed,
    said,
    shape,
)
from specs.triggers import MAX_CONDITIONS

NOTES = ("label", "description")

_EVENT = choice(*sorted(EVENTS))
_EVENTS: Schema = {"anyOf": [_EVENT, listed(_EVENT, minItems=1)]}
_INPUT_SCHEMA = said(
    {"type": ["object", "boolean", "null"]}, "A JSON Schema of what the run is given."
)
_CASE: Schema = {
    "anyOf": [
        {"type": ["string", "number", "boolean"]},
        shape({"name": TEXT, "value": ANYTHING, "condition": TEST}, ignored=("id", *NOTES)),
    ]
}
_JOIN: Schema = {
    "description": "all, any, or how many of the branches it waits for.",
    "anyOf": [
        choice("all", "any", "n-of-m", "n_of_m", "at_least"),
        {
            "type": "object",
            "properties": {
                name: {"type": "integer", "minimum": 1} for name in ("at_least", "n_of_m")
            },
            "minProperties": 1,
            "additionalProperties": False,
        },
    ],
}
JOIN = _JOIN

CONFIGS: Mapping[str, Schema] = {
    "trigger_record": {
        **shape(
            {
                "object": said({"type": "string", "minLength": 1}, "A table or an object."),
                "event": _EVENTS,
                "events": _EVENTS,
                "conditions": listed(COMPARISON, maxItems=MAX_CONDITIONS),
                "source": ANYTHING,
                "namespace": ANYTHING,
                "snapshot": {"enum": [True, False, "trigger"]},
                "on_unknown": choice("skip", "fire", "error"),
            },
            ("object",),
        ),
        "anyOf": [{"required": ["event"]}, {"required": ["events"]}],
    },
    "trigger_schedule": shape(
        {
            "cron": said({"type": "string", "minLength": 1}, "0 9 * * 1-5, or with seconds first."),
            "timezone": TEXT,
            "catchup": choice("none", "last", "all"),
            "start_at": ANYTHING,
            "end_at": ANYTHING,
            "input": ANYTHING,
        },
        ("cron",),
        ignored=NOTES,
    ),
    "trigger_manual": shape({"input_schema": _INPUT_SCHEMA}, ignored=NOTES),
    "trigger_webhook": shape(
        {"verification": ANYTHING, "headers": ANYTHING, "input_schema": _INPUT_SCHEMA},
        is_open=True,
    ),
    "trigger_integration": shape({"input_schema": _INPUT_SCHEMA}, is_open=True),
    "logic_condition": {
        **shape(
            {
                "conditions": TEST,
                "condition": TEST,
                "expression": TEST,
                "field": TEXT,
                "op": TEXT,
                "value": ANYTHING,
                "all": listed(TEST, minItems=1),
                "any": listed(TEST, minItems=1),
                "not": TEST,
            },
            ignored=NOTES,
        ),
        "anyOf": [
            {"required": [name]}
            for name in ("conditions", "condition", "expression", "field", "all", "any", "not")
        ],
    },
    "logic_switch": shape(
        {
            "cases": {
                "anyOf": [
                    listed(_CASE, minItems=1, maxItems=MAX_CASES),
                    {"type": "object", "minProperties": 1, "maxProperties": MAX_CASES},
                ]
            },
            "value": ANYTHING,
            "field": TEXT,
            "expression": TEXT,
            "default": TEXT,
        },
        ("cases",),
        ignored=NOTES,
    ),
    "logic_loop": shape(
        {
            "items": said(
                {"type": ["array", "string"]}, "An array, or a template or expression of one."
            ),
            "mode": choice("parallel", "sequential"),
            "concurrency": {"type": "integer", "minimum": 1, "maximum": MAX_PARALLEL},
            "stop_on_error": {"type": "boolean"},
            "max_items": {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS},
        },
        ("items",),
        ignored=NOTES,
    ),
}
