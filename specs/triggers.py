"""Triggers: a type and a config to a `TriggerSpec`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

import jsonschema_rs

from permaflow.changes import EVENTS
from permaflow.plan import Condition, Json, TriggerSpec
from specs.conditions import read_condition
from specs.cron import cron_fault
from specs.durations import INSTANT_FORMS, parse_instant
from specs.reading import Fields, Report, kind_of, shown, step_into
from specs.zones import read_zone

KINDS = {
    "trigger_record": "record",
    "trigger_schedule": "schedule",
    "trigger_webhook": "webhook",
    "trigger_manual": "manual",
    "trigger_integration": "integration",
}
MAX_CONDITIONS = 100
MAX_HEADERS = 50
MAX_NAME = 200
"""Characters of the name of a connection or an event."""

_RECORD_FIELDS = frozenset(
    {"object", "event", "events", "conditions", "source", "namespace", "snapshot", "on_unknown"}
)
SCHEMES = ("none", "hmac", "github", "stripe", "slack", "shopify", "standard")
ALGORITHMS = ("sha256", "sha512", "sha1")
ENCODINGS = ("hex", "base64")
MAX_REPLAY_WINDOW = 86_400
MAX_SHORT = 100

_SHORT_TEXTS = ("header", "prefix", "timestamp_header")
_NOTES = frozenset({"label", "description"})
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)


def read_trigger(
    type_name: str, node: str, config: Mapping[str, Json], pointer: str, report: Report
) -> TriggerSpec:
    """`type_name` is one of `KINDS`; `pointer` is where `config` stands."""
    fields = Fields(config, pointer, report)
    kind = KINDS[type_name]
    match kind:
        case "record":
            return _record(node, fields)
        case "schedule":
            _schedule(fields)
        case "manual":
            fields.only({"input_schema"}, _NOTES)
            _schema(fields)
        case "webhook":
            _webhook(fields)
        case _:
            _integration(fields)
    return TriggerSpec(node, kind, settings=dict(config))


def _record(node: str, fields: Fields) -> TriggerSpec:
    fields.only(_RECORD_FIELDS, _NOTES)
    conditions: list[Condition] = []
    values = fields.array("conditions")
    if len(values) > MAX_CONDITIONS:
        fields.problem("conditions", "too_large", f"At most {MAX_CONDITIONS} are allowed.")
        values = []
    for index, value in enumerate(values):
        place = f"{fields.at('conditions')}/{index}"
        condition = read_condition(value, place, fields.report)
        if condition is not None:
            conditions.append(condition)
    for name in ("source", "namespace"):
        fields.text(name)
    fields.choice("on_unknown", ("skip", "fire", "error"), "skip")
    if fields.values.get("snapshot") not in (None, False, True, "trigger"):
        fields.problem("snapshot", "bad_value", "`snapshot` must be true or false.")
    settings = {
        name: value
        for name, value in fields.values.items()
        if name not in ("object", "event", "events", "conditions", *_NOTES)
    }
    return TriggerSpec(
        node,
        "record",
        object=fields.text("object", required=True) or "",
        events=_events(fields),
        conditions=tuple(conditions),
        settings=settings,
    )


def _events(fields: Fields) -> frozenset[str]:
    if fields.has("event") and fields.has("events"):
        fields.problem("events", "conflict", "Give either `event` or `events`.")
    name = "events" if fields.has("events") else "event"
    value = fields.values.get(name)
    if value is None:
        fields.missing("event", f"one of {', '.join(sorted(EVENTS))}, or an array of them")
        return frozenset()
    wanted = value if type(value) is list else [value]
    if not wanted:
        fields.problem(name, "empty", f"Name at least one of {', '.join(sorted(EVENTS))}.")
    for each in wanted:
        if type(each) is not str or each not in EVENTS:
            fields.problem(
                name,
                "bad_value",
                f"{shown(each) if type(each) is str else kind_of(each)} is no event; "
                f"{fields.report.guess(each, EVENTS)}the events are {', '.join(sorted(EVENTS))}.",
            )
    return frozenset(each for each in wanted if type(each) is str and each in EVENTS)


def _schedule(fields: Fields) -> None:
    fields.only({"cron", "timezone", "catchup", "start_at", "end_at", "input"}, _NOTES)
    cron = fields.text("cron", required=True)
    if cron is not None and (fault := cron_fault(cron)) is not None:
        fields.problem("cron", "bad_cron", f"{shown(cron)} cannot be kept to. {fault}")
    zone = read_zone(fields) or UTC
    start, end = _moment(fields, "start_at", zone), _moment(fields, "end_at", zone)
    if start is not None and end is not None and end <= start:
        fields.problem("end_at", "bad_value", "`end_at` must be later than `start_at`.")
    fields.choice("catchup", ("none", "last", "all"), "none")


def _moment(fields: Fields, name: str, zone: tzinfo) -> datetime | None:
    """A time in UTC; one without an offset is of the zone."""
    value = fields.text(name)
    if value is None:
        return None
    found = parse_instant(value, zone)
    if found is None:
        fields.problem(
            name,
            "bad_value",
            f"`{name}` is {shown(value)}; it must be {INSTANT_FORMS}, or a time without an offset, "
            "which is of the `timezone` or else in UTC.",
        )
    return found


def _webhook(fields: Fields) -> None:
    fields.only({"verification", "headers", "input_schema"}, _NOTES)
    _verification(fields)
    names = fields.array("headers")
    if len(names) > MAX_HEADERS:
        fields.problem("headers", "too_large", f"At most {MAX_HEADERS} are allowed.")
    for index, name in enumerate(names[:MAX_HEADERS]):
        if type(name) is not str or not _HEADER.fullmatch(name):
            fields.report.add(
                step_into(fields.at("headers"), index),
                "bad_value",
                f"{shown(name) if type(name) is str else kind_of(name)} is no name of a header; "
                "write one such as `x-request-id`.",
            )
    _schema(fields)


def _verification(fields: Fields) -> None:
    """A scheme, or an object with its options; the connector that verifies has the last word."""
    value = fields.values.get("verification")
    if type(value) is not dict:
        if value is not None and type(value) is not str:
            fields.wrong("verification", "the name of a scheme, or an object with `scheme`")
        else:
            fields.choice("verification", SCHEMES, SCHEMES[0])
        return
    options = Fields(value, fields.at("verification"), fields.report)
    options.only({"scheme", "algorithm", "encoding", "replay_window", *_SHORT_TEXTS})
    if options.text("scheme", required=True) is not None:
        options.choice("scheme", SCHEMES, SCHEMES[0])
    options.choice("algorithm", ALGORITHMS, ALGORITHMS[0])
    options.choice("encoding", ENCODINGS, ENCODINGS[0])
    options.whole("replay_window", 0, MAX_REPLAY_WINDOW, 0)
    for name in _SHORT_TEXTS:
        text = options.text(name)
        if text is not None and (len(text) > MAX_SHORT or not text.isascii()):
            options.problem(
                name, "bad_value", f"`{name}` has at most {MAX_SHORT} characters, of ASCII."
            )


def _integration(fields: Fields) -> None:
    fields.only({"connection_id", "event", "params", "input_schema"}, _NOTES)
    for name in ("connection_id", "event"):
        value = fields.text(name, required=True)
        if value is not None and len(value) > MAX_NAME:
            fields.problem(name, "too_large", f"`{name}` has at most {MAX_NAME} characters.")
    fields.object("params")
    _schema(fields)


def _schema(fields: Fields) -> None:
    """`input_schema` must be a JSON Schema; references are not followed."""
    schema = fields.values.get("input_schema")
    if schema is None:
        return
    if type(schema) is not dict and type(schema) is not bool:
        fields.wrong("input_schema", "a JSON Schema")
        return
    try:
        jsonschema_rs.meta.validate(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(error).splitlines()[0]
        fields.problem("input_schema", "bad_schema", f"This is no JSON Schema: {reason[:300]}.")
