"""Triggers: a type and a config to a `TriggerSpec`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jsonschema_rs

from permaflow.changes import EVENTS
from permaflow.plan import Condition, Json, TriggerSpec
from specs.conditions import read_condition
from specs.reading import Fields, Report, kind_of, shown
from specs.zones import read_zone

KINDS = {
    "trigger_record": "record",
    "trigger_schedule": "schedule",
    "trigger_webhook": "webhook",
    "trigger_manual": "manual",
    "trigger_integration": "integration",
}
MAX_CONDITIONS = 100

_RECORD_FIELDS = frozenset(
    {"object", "event", "events", "conditions", "source", "namespace", "snapshot", "on_unknown"}
)
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,\-#]+", re.ASCII)
_CRON_NAMES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly"})


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
            fields.only({"input_schema"}, {"label", "description"})
            _schema(fields)
        case _:
            _schema(fields)
    return TriggerSpec(node, kind, settings=dict(config))


def _record(node: str, fields: Fields) -> TriggerSpec:
    fields.only(_RECORD_FIELDS)
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
    fields.choice("on_unknown", ("skip", "fire", "error"), "skip")
    if fields.values.get("snapshot") not in (None, False, True, "trigger"):
        fields.problem("snapshot", "bad_value", "`snapshot` must be true or false.")
    settings = {
        name: value
        for name, value in fields.values.items()
        if name not in ("object", "event", "events", "conditions")
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
    fields.only({"cron", "timezone", "catchup", "start_at", "end_at", "input"})
    cron = fields.text("cron", required=True)
    if cron is not None and cron not in _CRON_NAMES:
        parts = cron.split()
        if len(parts) not in (5, 6) or not all(map(_CRON_FIELD.fullmatch, parts)):
            fields.problem(
                "cron",
                "bad_cron",
                f"{shown(cron)} is no cron expression; write five fields (minute, hour, day, "
                "month, weekday) as in `0 9 * * 1-5`, or six with seconds in front.",
            )
    read_zone(fields)
    fields.choice("catchup", ("none", "last", "all"), "none")


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
