"""The values of expressions: JSON, and the times and durations that are computed with on the way.

Every operation charges a budget, so what an expression may cost does not depend on a clock.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from permaflow.errors import EvaluationError
from permaflow.plan import Json
from permaflow.values import HIGHEST, LOWEST

Value = Any
"""Json, an aware datetime or a timedelta."""

BUDGET = 500_000
MAX_TEXT = 1_000_000
_NUMBERS = frozenset({int, float})
_CONTAINERS = frozenset({list, dict})


class Fault(EvaluationError):
    """An expression has no value here; `at` is the character (from 0) that is to blame."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


class Exhausted(Fault):
    """An expression used up its budget. `||` and `&&` do not make good for it."""


def kind(value: Value) -> str:
    """What a value is, in words that follow `is`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case datetime():
            return "a time"
        case timedelta():
            return "a duration"
        case _:
            return "no value"


class Meter:
    """What is left of the budget of one evaluation."""

    __slots__ = ("left",)

    def __init__(self, budget: int = BUDGET) -> None:
        self.left = budget

    def spend(self, cost: int, at: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise Exhausted(
                at,
                f"the expression takes more than {BUDGET:,} steps; work on fewer items, or let a "
                "code step do it",
            )


def same(left: Value, right: Value, meter: Meter, at: int) -> bool:
    """Equality: numbers by value, true is not 1, and no error between different kinds."""
    one, other = type(left), type(right)
    if one in _CONTAINERS and one is other:
        meter.spend(1 + len(left), at)
        if len(left) != len(right):
            return False
        if one is list:
            return all(same(a, b, meter, at) for a, b in zip(left, right, strict=True))
        return all(name in right and same(left[name], right[name], meter, at) for name in left)
    if one is bool or other is bool:
        return left is right
    if one is str:
        meter.spend(len(left) >> 8, at)
    return bool(left == right)


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(op: str, left: Value, right: Value, meter: Meter, at: int) -> bool:
    """Whatever stands between two values and gives true or false."""
    if op == "==":
        return same(left, right, meter, at)
    if op == "!=":
        return not same(left, right, meter, at)
    if op == "in":
        return _within(left, right, meter, at)
    one, other = type(left), type(right)
    if one is other or (one in _NUMBERS and other in _NUMBERS):
        if one is str:
            meter.spend(len(left) >> 8, at)
        if one in _NUMBERS or one in (str, datetime, timedelta, bool):
            return _ORDERS[op](left, right)
    raise Fault(at, f"`{op}` cannot compare {kind(left)} with {kind(right)}")


def _within(item: Value, holder: Value, meter: Meter, at: int) -> bool:
    if type(holder) is dict:
        return type(item) is str and item in holder
    if type(holder) is list:
        meter.spend(1 + len(holder), at)
        return any(same(item, each, meter, at) for each in holder)
    raise Fault(at, f"`in` looks into a list or an object, but this is {kind(holder)}")


def add(left: Value, right: Value, meter: Meter, at: int) -> Value:
    """Sums; text with text, numbers, or true and false; lists; times with durations."""
    one, other = type(left), type(right)
    if one in _NUMBERS and other in _NUMBERS:
        return number(left + right, at)
    if one is str or other is str:
        if one is not str:
            left = _written(left, right, at)
        elif other is not str:
            right = _written(right, left, at)
        return text(left + right, meter, at)
    if one is list and other is list:
        meter.spend(len(left) + len(right), at)
        return left + right
    if (one is datetime and other is timedelta) or (one is timedelta and other is datetime):
        return moment(lambda: left + right, at)
    if one is timedelta and other is timedelta:
        return moment(lambda: left + right, at)
    raise Fault(at, f"`+` cannot add {kind(right)} to {kind(left)}")


def _written(value: Value, beside: Value, at: int) -> str:
    if type(value) in _NUMBERS or type(value) is bool:
        return as_text(value)
    raise Fault(at, f"`+` cannot add {kind(value)} to {kind(beside)}")


def as_text(value: Value) -> str:
    """How a scalar reads; whole numbers without a point."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e16:
            return str(int(value))
        case float():
            return repr(value)
        case datetime():
            return rfc3339(value)
        case timedelta():
            return f"{as_text(value.total_seconds())}s"
        case _:
            return str(value)


def calculate(op: str, left: Value, right: Value, at: int) -> Value:
    """`- * / %`. Whole numbers divide to whole numbers, towards nothing, as in CEL."""
    one, other = type(left), type(right)
    if one in _NUMBERS and other in _NUMBERS:
        return _calculate(op, left, right, at)
    if op == "-" and one is datetime and other in (datetime, timedelta):
        return moment(lambda: left - right, at)
    if op == "-" and one is timedelta and other is timedelta:
        return moment(lambda: left - right, at)
    words = {"-": "subtract", "*": "multiply", "/": "divide", "%": "divide"}
    raise Fault(at, f"`{op}` cannot {words[op]} {kind(left)} and {kind(right)}")


def _calculate(op: str, left: Any, right: Any, at: int) -> Json:
    if op == "-":
        return number(left - right, at)
    if op == "*":
        return number(left * right, at)
    whole = type(left) is int and type(right) is int
    if right == 0:
        raise Fault(at, "this divides by nothing (0)")
    if op == "/":
        if not whole:
            return number(left / right, at)
        quotient = abs(left) // abs(right)
        return number(quotient if (left < 0) == (right < 0) else -quotient, at)
    if not whole:
        return number(math.fmod(left, right), at)
    rest: int = abs(left) % abs(right)
    return -rest if left < 0 else rest


def number(value: Any, at: int) -> Json:
    """A number that JSON can carry."""
    if type(value) is int:
        if not LOWEST <= value <= HIGHEST:
            raise Fault(at, "the result does not fit into 64 bits")
    elif not math.isfinite(value):
        raise Fault(at, "the result is too large for a number")
    return value


def text(value: str, meter: Meter, at: int) -> str:
    """Text that has been made."""
    meter.spend(1 + (len(value) >> 4), at)
    if len(value) > MAX_TEXT:
        raise Fault(at, f"a text became longer than {MAX_TEXT:,} characters")
    return value


def moment(make: Callable[[], Value], at: int) -> Value:
    """A time or a duration that a calendar has."""
    try:
        return make()
    except (OverflowError, ValueError):
        raise Fault(at, "the result is outside of the years 1 to 9999") from None


def rfc3339(value: datetime) -> str:
    """In UTC, as text that every other part reads."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def finished(value: Value, limit: int) -> Json:
    """`value` as JSON that takes no more than about `limit` characters.

    Times become text, durations seconds. Raises `Fault`.
    """
    match value:
        case datetime():
            return rfc3339(value)
        case timedelta():
            return value.total_seconds()
        case list() | dict():
            written, _ = _written_out(value, {}, limit)
            return written
        case _:
            return value


def _written_out(value: Value, known: dict[int, tuple[Value, int]], limit: int) -> tuple[Json, int]:
    """The value and its size. What is there many times is looked at once, and counts each time."""
    kind_of = type(value)
    if kind_of is str:
        return value, len(value) + 2
    if kind_of not in _CONTAINERS:
        return finished(value, limit), 8
    found = known.get(id(value))
    if found is not None:
        return found
    size, changed = 2, False
    pairs: Any = value.items() if kind_of is dict else enumerate(value)
    made: dict[Any, Json] = {}
    for key, part in pairs:
        written, took = _written_out(part, known, limit)
        size += took + (len(key) + 4 if kind_of is dict else 1)
        if size > limit:
            raise Fault(0, f"the value takes more than {limit:,} bytes")
        changed = changed or written is not part
        made[key] = written
    if not changed:
        result = (value, size)
    else:
        result = (made if kind_of is dict else list(made.values()), size)
    known[id(value)] = result
    return result
