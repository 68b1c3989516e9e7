"""Conditions of a trigger: `{field, op, value}`, looking at one change of a record.

`field` is a path of names and indexes in the record after the change, or, with `before.` in front,
in the record before it. A test is three-valued: None means that the source did not send what it
would take to know. On a creation, every field has changed from nothing; on a deletion, none has
changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from permaflow.changes import CREATED, DELETED, UNAVAILABLE
from permaflow.errors import DocumentError
from permaflow.plan import MISSING, Condition, Json
from specs.comparing import (
    ALIASES,
    CHANGES,
    NO_VALUE,
    OPERATORS,
    Compare,
    comparison,
    equal_to,
    same,
    value_fault,
)
from specs.paths import walk
from specs.reading import Fields, Report, kind_of, shown

_FIELD = re.compile(r"[^.\[\]{}\s]+(?:\.[^.\[\]{}\s]+|\[\d+\])*")


class Change(Protocol):
    """What a trigger's condition looks at; `permaflow.changes.ChangeRecord` is one."""

    @property
    def event(self) -> str: ...
    @property
    def record(self) -> Mapping[str, Json]: ...
    @property
    def before(self) -> Mapping[str, Json] | None: ...
    @property
    def unavailable(self) -> frozenset[str]: ...


Test = Callable[[Change], bool | None]


def read_condition(
    value: Json, pointer: str, report: Report, *, templates: bool = False
) -> Condition | None:
    """One `{field, op, value}` of a trigger; None if it is none. See `read_operator`."""
    fields = condition_fields(value, pointer, report)
    if fields is None:
        return None
    field = fields.text("field", required=True)
    op = read_operator(fields, templates=templates)
    if field is None or op is None:
        return None
    if field.startswith(("trigger.record.", "trigger.before.")):
        here = field.removeprefix("trigger.").removeprefix("record.")
        fields.problem(
            "field",
            "bad_field",
            f"The fields of a trigger's condition are those of the record: write {shown(here)}.",
        )
        return None
    if not _FIELD.fullmatch(field):
        fields.problem(
            "field",
            "bad_field",
            f"{shown(field)} is no path; write names and indexes, as in `address.city` "
            "or `items[0].id`.",
        )
        return None
    return Condition(tuple(re.findall(r"[^.\[\]]+", field)), op, fields.values.get("value"))


def compile_condition(value: Json) -> Condition:
    """Raises `DocumentError`; pointers are relative to `value`."""
    report = Report()
    condition = read_condition(value, "", report)
    if condition is None or report.problems:
        raise DocumentError(report.problems)
    return condition


def compile_test(condition: Condition) -> Test:
    """The test of one condition."""
    if condition.op in CHANGES:
        return _change_test(condition)
    compare = comparison(condition.op, condition.value)
    if condition.field[0] == "before" and len(condition.field) > 1:
        return _before_test(condition.field[1:], compare)
    if len(condition.field) == 1:
        return _plain_test(condition.field[0], compare)
    path, first = condition.field, condition.field[0]

    def test(change: Change) -> bool | None:
        found = walk(change.record, path)
        if first in change.unavailable or found == UNAVAILABLE:
            return None
        return compare(found)

    return test


def compile_tests(conditions: Sequence[Condition]) -> Test:
    """The test of all: false if one is false, else unknown if one is unknown, else true."""
    tests = [compile_test(condition) for condition in conditions]
    if len(tests) == 1:
        return tests[0]

    def test(change: Change) -> bool | None:
        result: bool | None = True
        for each in tests:
            passed = each(change)
            if passed is False:
                return False
            if passed is None:
                result = None
        return result

    return test


def _plain_test(name: str, compare: Compare) -> Test:
    def test(change: Change) -> bool | None:
        found = change.record.get(name, MISSING)
        if found == UNAVAILABLE or name in change.unavailable:
            return None
        return compare(found)

    return test


def _before_test(path: tuple[str, ...], compare: Compare) -> Test:
    def test(change: Change) -> bool | None:
        before = _before(change)
        if before is None:
            return None
        found = walk(before, path)
        return None if found == UNAVAILABLE else compare(found)

    return test


def _change_test(condition: Condition) -> Test:
    path = condition.field
    passes = judge(condition.op, equal_to(condition.value))

    def test(change: Change) -> bool | None:
        if change.event == DELETED:
            return False
        before = _before(change)
        if before is None or path[0] in change.unavailable:
            return None
        old, new = walk(before, path), walk(change.record, path)
        if old == UNAVAILABLE or new == UNAVAILABLE:
            return None
        return passes(old, new)

    return test


def _before(change: Change) -> Mapping[str, Json] | None:
    if change.before is None and change.event == CREATED:
        return {}
    return change.before


def judge(op: str, equal: Compare) -> Callable[[Json, Json], bool]:
    """Whether the old and the new value of a field pass a test of `CHANGES`."""
    match op:
        case "changed_from":
            return lambda old, new: old is not MISSING and not same(old, new) and equal(old)
        case "changed_to":
            return lambda old, new: new is not MISSING and not same(old, new) and equal(new)
        case _:
            return lambda old, new: not same(old, new)


def condition_fields(value: Json, pointer: str, report: Report) -> Fields | None:
    """The members of one `{field, op, value}`; None if it is no object."""
    if type(value) is not dict:
        report.add(
            pointer,
            "wrong_type",
            f'A condition is an object `{{"field": …, "op": …, "value": …}}`, but this is '
            f"{kind_of(value)}.",
        )
        return None
    fields = Fields(value, pointer, report)
    fields.only({"field", "op", "value"}, {"id", "label"})
    return fields


def read_operator(fields: Fields, *, templates: bool = False) -> str | None:
    """The operator, if it is one and the value fits; with `templates`, a template always fits."""
    name = fields.text("op", required=True)
    if name is None:
        return None
    op = ALIASES.get(name, name)
    if op not in OPERATORS:
        fields.problem(
            "op",
            "bad_value",
            f"There is no operator {shown(name)}; {fields.report.guess(name, OPERATORS)}"
            f"the operators are {', '.join(sorted(OPERATORS))}.",
        )
        return None
    if op not in NO_VALUE and "value" not in fields.values:
        fields.missing("value", f"what `{op}` compares with")
        return None
    value = fields.values.get("value")
    if templates and type(value) is str and "{{" in value:
        return op
    if (wanted := value_fault(op, value)) is not None:
        fields.problem("value", "bad_value", f"The value of `{op}` must be {wanted}.")
        return None
    return op
