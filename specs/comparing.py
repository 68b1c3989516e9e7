"""What the operators of conditions mean.

* Numbers compare by value (`1` equals `1.0`); true and false are no numbers.
* Strings compare letter by letter, except that two ISO 8601 dates or times compare as instants.
* Types that do not fit are not equal and in no order: the comparison is false, never an error.
* A field that is not there counts as null; only `exists` and `not_exists` tell the two apart.
* `matches` searches with regular expressions of linear time (RE2's kind: no look-around, no
  back-references).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime

import jsonschema_rs

from permaflow.plan import MISSING, Json

Compare = Callable[[Json], bool]
"""Tells whether a value, or `MISSING`, passes."""

ALIASES = {"==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
CHANGES = frozenset({"changed", "changed_from", "changed_to"})
"""These compare two states of a record; the rest look at one value."""

_ORDER: dict[str, Callable[[Json, Json], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_TEXT: dict[str, Callable[[str, str], bool]] = {
    "starts_with": str.startswith,
    "ends_with": str.endswith,
}
NO_VALUE = frozenset({"exists", "not_exists", "is_null", "changed"})
OPERATORS = frozenset(
    {"eq", "ne", "in", "not_in", "contains", "not_contains", "matches"}
    | _ORDER.keys()
    | _TEXT.keys()
    | NO_VALUE
    | CHANGES
)
MAX_PATTERN = 1_000
MAX_COMPILED = 256 * 1024

_NUMBERS = frozenset({int, float})
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:$|[T ]\d\d:\d\d)", re.ASCII)


def value_fault(op: str, value: Json) -> str | None:
    """What is wrong with the `value` of a condition, as the end of `…must be`; None if nothing."""
    if op in _ORDER:
        return None if type(value) in _NUMBERS or type(value) is str else "a number or a string"
    if op in ("in", "not_in"):
        return None if type(value) is list else "an array"
    if op in _TEXT:
        return None if type(value) is str else "a string"
    if op == "matches":
        if type(value) is not str or len(value) > MAX_PATTERN:
            return f"a regular expression of at most {MAX_PATTERN:,} characters"
        return (
            None
            if _pattern(value)
            else "a regular expression without look-around, back-references and huge repeats"
        )
    return None


def comparison(op: str, value: Json) -> Compare:
    """The test of one value. `value` has passed `value_fault`; any other makes a false test."""
    if value_fault(op, value) is not None:
        return _never
    match op:
        case "eq":
            return equal_to(value)
        case "ne":
            return _opposite(equal_to(value))
        case "in":
            return _one_of(value)
        case "not_in":
            return _opposite(_one_of(value))
        case "contains":
            return _containing(value)
        case "not_contains":
            return _opposite(_containing(value))
        case "exists" | "not_exists":
            return _present if (op == "exists") == (value is not False) else _absent
        case "is_null":
            return _not_null if value is False else _null
        case "matches":
            return _matching(value)
        case _ if op in _ORDER:
            return _ordered(_ORDER[op], value)
        case _ if op in _TEXT:
            return _affix(_TEXT[op], value)
        case _:
            return _never


def same(left: Json, right: Json) -> bool:
    """Equality of JSON values, where numbers are equal by value and true is not 1."""
    kind = type(left)
    if kind is bool or type(right) is bool:
        return left is right
    if kind is list and type(right) is list:
        return len(left) == len(right) and all(map(same, left, right))
    if kind is dict and type(right) is dict:
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return bool(left == right)


def equal_to(value: Json) -> Compare:
    if value is None:
        return _null
    if type(value) is str:
        if (instant := _instant(value)) is not None:
            return lambda found: (
                found == value or (type(found) is str and _instant(found) == instant)
            )
        return lambda found: type(found) is str and found == value
    if type(value) in _NUMBERS:
        return lambda found: type(found) in _NUMBERS and found == value
    return lambda found: same(found, value)


def _one_of(values: list[Json]) -> Compare:
    if all(type(value) is str and _instant(value) is None for value in values):
        names = frozenset(values)
        return lambda found: type(found) is str and found in names
    tests = [equal_to(value) for value in values]
    return lambda found: any(test(found) for test in tests)


def _ordered(compare: Callable[[Json, Json], bool], value: Json) -> Compare:
    if type(value) is str:
        instant = _instant(value)
        if instant is not None:

            def by_time(found: Json) -> bool:
                if type(found) is not str:
                    return False
                other = _instant(found)
                return compare(found, value) if other is None else compare(other, instant)

            return by_time
        return lambda found: type(found) is str and compare(found, value)
    return lambda found: type(found) in _NUMBERS and compare(found, value)


def _containing(value: Json) -> Compare:
    equal = equal_to(value)

    def contains(found: Json) -> bool:
        if type(found) is str:
            return type(value) is str and value in found
        if type(found) is list:
            return any(equal(item) for item in found)
        return type(found) is dict and type(value) is str and value in found

    return contains


def _affix(test: Callable[[str, str], bool], value: str) -> Compare:
    return lambda found: type(found) is str and test(found, value)


def _matching(pattern: str) -> Compare:
    schema = _pattern(pattern)
    if schema is None:
        return _never
    is_valid = schema.is_valid
    return lambda found: type(found) is str and is_valid(found)


def _pattern(pattern: str) -> jsonschema_rs.Draft202012Validator | None:
    # The engine behind `pattern` is Rust's regex: linear in the text, with a bound on its size.
    try:
        return jsonschema_rs.Draft202012Validator(
            {"pattern": pattern},
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=MAX_COMPILED, dfa_size_limit=MAX_COMPILED
            ),
        )
    except (jsonschema_rs.ValidationError, ValueError):
        return None


def _instant(text: str) -> datetime | None:
    if not _DATE.match(text):
        return None
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
    except ValueError:
        return None


def _opposite(test: Compare) -> Compare:
    return lambda found: not test(found)


def _null(found: Json) -> bool:
    return found is None or found is MISSING


def _not_null(found: Json) -> bool:
    return found is not None and found is not MISSING


def _present(found: Json) -> bool:
    return found is not MISSING


def _absent(found: Json) -> bool:
    return found is MISSING


def _never(_: Json) -> bool:
    return False
