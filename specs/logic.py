"""The configs of condition, switch, loop and delay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC

import msgspec

from permaflow.plan import Branch, Constant, Context, Delay, Expression, Json, Loop, Question
from specs.branching import FORMS, read_expression, read_path
from specs.comparing import Compare, equal_to
from specs.durations import (
    DURATION_FORMS,
    INSTANT_FORMS,
    Instant,
    Seconds,
    parse_duration,
    parse_instant,
)
from specs.expressions import Formula, read_formula
from specs.paths import Path
from specs.reading import Fields, kind_of, shown
from specs.templates import Bounded, Items, Look, Text, read_config
from specs.waits import read_wait
from specs.zones import read_zone

MAX_CASES = 200
MAX_ITEMS = 100_000
DEFAULT_PARALLEL = 1_000
MAX_PARALLEL = 10_000
NOTES = frozenset({"label", "description"})
"""What builders write beside the settings."""

_DELAYS = ("until_field", "duration", "duration_seconds", "until")
_NOTHING = Constant(None)
_FALSE = Constant(False)


def read_condition(fields: Fields, look: Look) -> Branch:
    """`{"conditions": […]}`, `{"condition": …}`, `{"expression": …}`, or the condition itself."""
    named = [name for name in ("conditions", "condition", "expression") if fields.has(name)]
    if len(named) > 1:
        fields.problem(named[1], "conflict", f"Give either `{named[0]}` or `{named[1]}`.")
    if named:
        fields.only({"conditions", "condition", "expression"}, NOTES)
        value, pointer = fields.values[named[0]], fields.at(named[0])
    else:
        value = {name: part for name, part in fields.values.items() if name not in NOTES}
        pointer = fields.pointer
        if not value:
            fields.problem("", "missing_field", f"`condition` is missing; write {FORMS}.")
            return Branch((("true", _FALSE),), "false")
    test = read_expression(value, pointer, fields.report, look)
    return Branch((("true", test or _FALSE),), "false")


@dataclass(frozen=True, slots=True)
class Equal:
    """Whether the value that a switch looks at is that of one case."""

    value: Expression
    compare: Compare

    def evaluate(self, context: Context) -> bool:
        return self.compare(self.value.evaluate(context))


def read_switch(fields: Fields, look: Look) -> Branch:
    """`{"value": "{{…}}", "cases": […], "default": "default"}`.

    `field` (a path that may lead nowhere) or `expression` may stand in place of `value`. A case is
    a value, which is its name as well, or `{"name", "value"}`, or `{"name", "condition"}`; `cases`
    may also be an object, name to value. The first case that is true is taken, else `default`.
    """
    fields.only({"value", "field", "expression", "cases", "default"}, NOTES)
    value = _switched(fields, look)
    default = fields.text("default") or "default"
    cases: dict[str, Expression] = {}
    listed = fields.values.get("cases")
    pointer = fields.at("cases")
    if type(listed) is dict:
        listed = [{"name": name, "value": part} for name, part in listed.items()]
    if not listed or type(listed) is not list:
        fields.problem("cases", "empty", "A switch needs `cases`: an array of values.")
        listed = []
    if len(listed) > MAX_CASES:
        fields.problem("cases", "too_large", f"A switch may have {MAX_CASES} cases.")
        listed = []
    for index, case in enumerate(listed):
        read = _case(case, Fields({}, f"{pointer}/{index}", fields.report), value, look)
        if read is None:
            continue
        name, test = read
        if name in cases or name == default:
            fields.report.add(
                f"{pointer}/{index}", "duplicate", f"There are two cases {shown(name)}; rename one."
            )
        cases[name] = test
    return Branch(tuple(cases.items()), default)


def _switched(fields: Fields, look: Look) -> Expression | None:
    named = [name for name in ("field", "expression", "value") if fields.has(name)]
    if len(named) > 1:
        fields.problem(named[1], "conflict", f"Give either `{named[0]}` or `{named[1]}`.")
    if fields.has("expression"):
        source = fields.text("expression")
        if source is None:
            return None
        return read_formula(source, fields.at("expression"), fields.report, look)
    if fields.has("field"):
        path = read_path(fields)
        if path is None:
            return None
        look(path, fields.at("field"))
        return Path(path.segments, path.text, None)
    if "value" not in fields.values:
        return None
    value = read_config(fields.values["value"], fields.at("value"), fields.report, look)
    return value if hasattr(value, "evaluate") else Constant(value)


def _case(
    case: Json, place: Fields, value: Expression | None, look: Look
) -> tuple[str, Expression] | None:
    if type(case) is not dict:
        case = {"value": case}
    fields = Fields(case, place.pointer, place.report)
    fields.only({"name", "value", "condition"}, {"id", *NOTES})
    if "condition" in case:
        name = fields.text("name", required=True)
        test = read_expression(case["condition"], fields.at("condition"), fields.report, look)
        return (name, test or _FALSE) if name else None
    if "value" not in case:
        fields.missing("value", "what this case stands for, or `condition`")
        return None
    expected = case["value"]
    name = fields.text("name") or _name(expected)
    if name is None:
        fields.missing("name", "a string: the handle of this case's edges")
        return None
    if type(expected) is str and "{{" in expected:
        fields.problem(
            "value", "bad_value", "A case's value is fixed; use `condition` to compare two paths."
        )
        return None
    if value is None:
        fields.problem(
            "value", "missing_field", "The switch has no `value` to compare this case with."
        )
        return None
    return name, Equal(value, equal_to(expected))


def _name(value: Json) -> str | None:
    if type(value) is str:
        return value or None
    if type(value) in (bool, int, float):
        return msgspec.json.encode(value).decode()
    return None


def read_loop(fields: Fields, look: Look) -> Loop:
    """`items` (an array, or a template or an expression of one), `mode` (parallel or sequential),
    `concurrency` (how many iterations are open at once; 1,000), `stop_on_error` (true),
    `max_items` (100,000).
    """
    fields.only({"items", "mode", "concurrency", "stop_on_error", "max_items"}, NOTES)
    mode = fields.choice("mode", ("parallel", "sequential"), "parallel")
    parallel = fields.whole("concurrency", 1, MAX_PARALLEL, DEFAULT_PARALLEL)
    if mode == "sequential":
        if fields.has("concurrency") and parallel != 1:
            fields.problem(
                "concurrency", "conflict", "A sequential loop has a concurrency of 1; leave it out."
            )
        parallel = 1
    most = fields.whole("max_items", 1, MAX_ITEMS, MAX_ITEMS)
    stop_on_error = fields.flag("stop_on_error", True)
    return Loop(_items(fields, most, look), parallel, stop_on_error, most)


def _items(fields: Fields, most: int, look: Look) -> Expression:
    value = fields.values.get("items")
    if value is None:
        fields.missing("items", "an array, or a template of one such as `{{trigger.record.lines}}`")
        return _NOTHING
    if type(value) is str and "{{" not in value:
        return read_formula(value, fields.at("items"), fields.report, look) or _NOTHING
    items = read_config(value, fields.at("items"), fields.report, look)
    if type(value) is list and len(value) > most:
        fields.problem("items", "too_large", f"A loop may have {most:,} items.")
    match items:
        case list():
            return Constant(items)
        case Path() | Formula() | Items() | Bounded(whole=Items()) | Bounded(whole=Formula()):
            return items
        case Text() | Bounded(whole=Text()):
            reason = "text around the template makes it a string"
        case _:
            reason = f"this is {kind_of(value)}"
    fields.problem("items", "wrong_type", f"`items` must be an array or one template; {reason}.")
    return _NOTHING


def read_delay(fields: Fields, look: Look) -> Delay | Question:
    """`duration` (seconds, `90s`, `1h30m`, `PT1H30M`) or `until` (RFC 3339, or local time with a
    `timezone`), or a template; or `until_field` (`specs.waits`).
    """
    given = [name for name in _DELAYS if fields.has(name)]
    if len(given) > 1:
        fields.problem(given[1], "conflict", f"Give either `{given[0]}` or `{given[1]}`.")
    if given and given[0] == "until_field":
        return read_wait(fields, look)
    fields.only({*_DELAYS, "timezone"}, NOTES)
    if not given:
        fields.missing("duration", f"{DURATION_FORMS}, or `until`: {INSTANT_FORMS}")
        return Delay(_NOTHING)
    name = given[0]
    zone = read_zone(fields)
    if zone is not None and name != "until":
        fields.problem("timezone", "conflict", "Only `until` has a time zone; remove `timezone`.")
    raw = fields.values[name]
    value = read_config(raw, fields.at(name), fields.report, look)
    moving = isinstance(value, Path | Formula | Text | Bounded)
    if name == "until":
        if moving:
            return Delay(until=Instant(value, zone or UTC))
        instant = parse_instant(value, zone or UTC)
        if instant is None:
            fields.problem(name, "bad_value", f"`until` must be {INSTANT_FORMS}.")
            return Delay(until=_NOTHING)
        return Delay(until=Constant(instant.isoformat()))
    if moving:
        return Delay(Seconds(value))
    seconds = parse_duration(value)
    if seconds is None:
        fields.problem(
            name, "bad_value", f"`{name}` must be {DURATION_FORMS}, and no longer than ten years."
        )
        return Delay(_NOTHING)
    return Delay(Constant(seconds))
