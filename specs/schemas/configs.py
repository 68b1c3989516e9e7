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
from specs.triggers import (
    ALGORITHMS,
    ENCODINGS,
    MAX_CONDITIONS,
    MAX_HEADERS,
    MAX_NAME,
    MAX_REPLAY_WINDOW,
    MAX_SHORT,
    SCHEMES,
)

NOTES = ("label", "description")

_EVENT = choice(*sorted(EVENTS))
_EVENTS: Schema = {"anyOf": [_EVENT, listed(_EVENT, minItems=1)]}
_INPUT_SCHEMA = said(
    {"type": ["object", "boolean", "null"]}, "A JSON Schema of what the run is given."
)
_MOMENT: Schema = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}", "maxLength": 40}
_NAMED: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
_SHORT: Schema = {"type": "string", "pattern": rf"^[\x00-\x7f]{{0,{MAX_SHORT}}}$"}
_VERIFICATION: Schema = {
    "description": "How senders sign: a scheme, or an object with its options.",
    "anyOf": [
        choice(*SCHEMES),
        shape(
            {
                "scheme": choice(*SCHEMES),
                "header": _SHORT,
                "algorithm": choice(*ALGORITHMS),
                "encoding": choice(*ENCODINGS),
                "prefix": _SHORT,
                "timestamp_header": _SHORT,
                "replay_window": {"type": "integer", "minimum": 0, "maximum": MAX_REPLAY_WINDOW},
            },
            ("scheme",),
        ),
    ],
}


def _given(name: str, other: str) -> Schema:
    """One member, and not the other."""
    return {
        "required": [name],
        "properties": {name: {"not": {"type": "null"}}, other: {"type": "null"}},
    }


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
                "source": said(TEXT, "Only changes that this source tells of."),
                "namespace": said(TEXT, "Only changes in this schema."),
                "snapshot": {"enum": [True, False, "trigger"]},
                "on_unknown": choice("skip", "fire", "error"),
            },
            ("object",),
            ignored=NOTES,
        ),
        "oneOf": [_given("event", "events"), _given("events", "event")],
    },
    "trigger_schedule": shape(
        {
            "cron": said({"type": "string", "minLength": 1}, "0 9 * * 1-5, or with seconds first."),
            "timezone": TEXT,
            "catchup": choice("none", "last", "all"),
            "start_at": said(_MOMENT, "Not before this time."),
            "end_at": said(_MOMENT, "Not after this time, which is later than start_at."),
            "input": ANYTHING,
        },
        ("cron",),
        ignored=NOTES,
    ),
    "trigger_manual": shape({"input_schema": _INPUT_SCHEMA}, ignored=NOTES),
    "trigger_webhook": shape(
        {
            "verification": _VERIFICATION,
            "headers": said(
                listed(
                    {"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"},
                    maxItems=MAX_HEADERS,
                ),
                "Headers that the run is given, too.",
            ),
            "input_schema": _INPUT_SCHEMA,
        },
        ignored=NOTES,
    ),
    "trigger_integration": shape(
        {
            "connection_id": said(_NAMED, "The connection: whose account is listened to."),
            "event": said(_NAMED, "The event, as the service's catalogue names it."),
            "params": said({"type": "object"}, "What the event needs to be listened for."),
            "input_schema": _INPUT_SCHEMA,
        },
        ("connection_id", "event"),
        ignored=NOTES,
    ),
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
