"""The functions of expressions: name → how many arguments, and what it does.

Those of CEL's standard (`size`, `contains`, `matches`, `timestamp` …) mean what they mean there;
the others are those of its usual extensions. None looks at a clock, and none can be added by a
document. Regular expressions are of linear time.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from permaflow.values import DECIMAL
from specs.cel.values import (
    Fault,
    Meter,
    Value,
    as_text,
    compare,
    kind,
    moment,
    number,
    same,
    text,
)
from specs.comparing import MAX_PATTERN, Compare, comparison, value_fault

Apply = Callable[[tuple[Value, ...], Meter, int], Value]


@dataclass(frozen=True, slots=True)
class Function:
    least: int
    most: int
    apply: Apply


FUNCTIONS: dict[str, Function] = {}
_NUMBERS = frozenset({int, float})
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)


def _function(name: str, least: int = 1, most: int | None = None) -> Callable[[Apply], Apply]:
    def keep(apply: Apply) -> Apply:
        FUNCTIONS[name] = Function(least, least if most is None else most, apply)
        return apply

    return keep


def _texts(name: str, values: tuple[Value, ...], at: int) -> None:
    for value in values:
        if type(value) is not str:
            raise Fault(at, f"`{name}` works on text, but this is {kind(value)}")


def _list(name: str, value: Value, at: int) -> list[Value]:
    if type(value) is not list:
        raise Fault(at, f"`{name}` works on a list, but this is {kind(value)}")
    return value


# --- sizes and conversions ----------------------------------------------------------------------


@_function("size")
def _size(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    if type(values[0]) in (str, list, dict):
        return len(values[0])
    raise Fault(at, f"`size` counts text, a list or an object, but this is {kind(values[0])}")


@_function("string")
def _string(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    if values[0] is None or type(values[0]) in (list, dict):
        raise Fault(at, f"`string` cannot write {kind(values[0])} as text")
    return as_text(values[0])


@_function("int")
def _int(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    match values[0]:
        case bool():
            pass
        case int():
            return values[0]
        case float():
            return number(int(values[0]), at)
        case str() if re.fullmatch(r"[+-]?\d{1,20}", values[0], re.ASCII):
            return number(int(values[0]), at)
        case datetime():
            return math.floor(values[0].timestamp())
    raise Fault(at, f"`int` cannot make a whole number of {_shown(values[0])}")


@_function("double")
def _double(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    value = values[0]
    if type(value) in _NUMBERS:
        return float(value)
    if type(value) is str and len(value) <= 400 and DECIMAL.fullmatch(value):
        return number(float(value), at)
    raise Fault(at, f"`double` cannot make a number of {_shown(value)}")


@_function("bool")
def _bool(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    value = values[0]
    if type(value) is bool:
        return value
    known = {"true": True, "false": False}
    if type(value) is str and value.lower() in known:
        return known[value.lower()]
    raise Fault(at, f"`bool` cannot make true or false of {_shown(value)}")


@_function("dyn")
def _dyn(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    return values[0]


def _shown(value: Value) -> str:
    return f"`{value[:40]}`" if type(value) is str else kind(value)


FUNCTIONS["uint"] = FUNCTIONS["int"]


# --- text ---------------------------------------------------------------------------------------


@_function("contains", 2)
def _contains(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    holder, part = values
    if type(holder) is list:
        meter.spend(1 + len(holder), at)
        return any(same(part, each, meter, at) for each in holder)
    _texts("contains", values, at)
    meter.spend(len(holder) >> 8, at)
    return part in holder


@_function("matches", 2)
def _matches(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    _texts("matches", values, at)
    meter.spend(1 + (len(values[0]) >> 4), at)
    return pattern(values[1], at)(values[0])


@lru_cache(maxsize=256)
def _compiled(source: str) -> Compare | str:
    wanted = value_fault("matches", source)
    return comparison("matches", source) if wanted is None else wanted


def pattern(source: str, at: int) -> Compare:
    """The test of a regular expression. Raises `Fault` for none, or one of a kind with no bound."""
    found = _compiled(source) if len(source) <= MAX_PATTERN else "shorter"
    if isinstance(found, str):
        raise Fault(at, f"the pattern of `matches` must be {found}")
    return found


def _plain(name: str, work: Callable[..., Value], count: int = 1, most: int | None = None) -> None:
    """A function of text alone."""

    def apply(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
        _texts(name, values, at)
        made = work(*values)
        return text(made, meter, at) if type(made) is str else made

    FUNCTIONS[name] = Function(count, count if most is None else most, apply)


_plain("startsWith", str.startswith, 2)
_plain("endsWith", str.endswith, 2)
_plain("lowerAscii", lambda value: value.translate(_LOWER))
_plain("upperAscii", lambda value: value.translate(_UPPER))
_plain("trim", str.strip)
_plain("indexOf", str.find, 2)
_plain("lastIndexOf", str.rfind, 2)


@_function("replace", 3)
def _replace(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    _texts("replace", values, at)
    whole, old, new = values
    grown = len(whole) + (whole.count(old) if old else len(whole) + 1) * len(new)
    meter.spend(1 + (grown >> 4), at)
    return text(whole.replace(old, new), meter, at)


@_function("split", 2)
def _split(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    _texts("split", values, at)
    parts = values[0].split(values[1]) if values[1] else list(values[0])
    meter.spend(1 + len(parts), at)
    return parts


@_function("join", 1, 2)
def _join(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    parts = _list("join", values[0], at)
    _texts("join", values[1:], at)
    between = values[1] if len(values) > 1 else ""
    for part in parts:
        if part is None or type(part) in (list, dict):
            raise Fault(at, f"`join` cannot write {kind(part)} as text")
    meter.spend(1 + len(parts) + (len(parts) * len(between) >> 4), at)
    return text(between.join(as_text(part) for part in parts), meter, at)


@_function("substring", 2, 3)
def _substring(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    _texts("substring", values[:1], at)
    end = values[2] if len(values) > 2 else len(values[0])
    if type(values[1]) is not int or type(end) is not int:
        raise Fault(at, "`substring` wants whole numbers: from where, and up to where")
    if not 0 <= values[1] <= end <= len(values[0]):
        raise Fault(at, f"there is no part from {values[1]} to {end} of {len(values[0])} letters")
    return text(values[0][values[1] : end], meter, at)


# --- numbers ------------------------------------------------------------------------------------


def _extreme(name: str, op: str) -> None:
    def apply(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
        items = values if len(values) > 1 else _list(name, values[0], at)
        if not items:
            raise Fault(at, f"`{name}` of no items has no value")
        best = items[0]
        meter.spend(len(items), at)
        for item in items[1:]:
            if compare(op, item, best, meter, at):
                best = item
        return best

    FUNCTIONS[name] = Function(1, 10, apply)


_extreme("min", "<")
_extreme("max", ">")
FUNCTIONS["math.least"] = FUNCTIONS["min"]
FUNCTIONS["math.greatest"] = FUNCTIONS["max"]


@_function("sum")
def _sum(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    total: Any = 0
    items = _list("sum", values[0], at)
    meter.spend(1 + len(items), at)
    for item in items:
        if type(item) not in _NUMBERS:
            raise Fault(at, f"`sum` adds numbers, but an item is {kind(item)}")
        total = number(total + item, at)
    return total


def _rounding(name: str, work: Callable[[Any], Any]) -> None:
    def apply(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
        value = values[0]
        if type(value) not in _NUMBERS:
            raise Fault(at, f"`{name}` works on a number, but this is {kind(value)}")
        if type(value) is int:
            return abs(value) if work is abs else value
        return float(number(work(value), at))

    FUNCTIONS[name] = Function(1, 1, apply)


_rounding("math.abs", abs)
_rounding("math.ceil", math.ceil)
_rounding("math.floor", math.floor)
_rounding("math.trunc", math.trunc)
_rounding("math.round", lambda value: math.copysign(math.floor(abs(value) + 0.5), value))


# --- times --------------------------------------------------------------------------------------

_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d+)?(?:h|ms|us|m|s))+)", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|m|s)", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000_001}


@_function("timestamp")
def _timestamp(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    value = values[0]
    if type(value) is datetime:
        return value
    if type(value) is int:
        return moment(lambda: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value), at)
    if type(value) is str and len(value) <= 40:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            aware = found if found.tzinfo else found.replace(tzinfo=UTC)
            # As it is written: there, too, it needs a year from 1 to 9999.
            return moment(lambda: aware.astimezone(UTC), at)
    raise Fault(
        at, f"{_shown(value)} is no time; a time reads `2030-01-31T09:00:00Z` or `2030-01-31`"
    )


@_function("duration")
def _duration(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
    value = values[0]
    if type(value) is timedelta:
        return value
    match = _DURATION.fullmatch(value) if type(value) is str and len(value) <= 60 else None
    if match is None:
        raise Fault(at, f"{_shown(value)} is no duration; write `90s` or `1h30m`")
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(match.group(2)))
    return moment(lambda: timedelta(seconds=-seconds if match.group(1) == "-" else seconds), at)


def _part(name: str, read: Callable[[datetime], int], spans: str = "") -> None:
    """A part of a time, in UTC or in the zone that is named; `spans`: the same of a duration."""

    def apply(values: tuple[Value, ...], meter: Meter, at: int) -> Value:
        value = values[0]
        if type(value) is timedelta and spans and len(values) == 1:
            return int(value.total_seconds() / _UNITS[spans])
        if type(value) is not datetime:
            raise Fault(
                at, f"`{name}` works on a time, but this is {kind(value)}; write `timestamp(…)`"
            )
        return read(moment(lambda: value.astimezone(_zone(values, at)), at))

    FUNCTIONS[name] = Function(1, 2, apply)


def _zone(values: tuple[Value, ...], at: int) -> Any:
    if len(values) == 1:
        return UTC
    try:
        return zoneinfo.ZoneInfo(values[1])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise Fault(at, f"{_shown(values[1])} is no time zone, such as `Europe/Berlin`") from None


_part("getFullYear", lambda t: t.year)
_part("getMonth", lambda t: t.month - 1)
_part("getDate", lambda t: t.day)
_part("getDayOfMonth", lambda t: t.day - 1)
_part("getDayOfWeek", lambda t: t.isoweekday() % 7)
_part("getDayOfYear", lambda t: t.timetuple().tm_yday - 1)
_part("getHours", lambda t: t.hour, "h")
_part("getMinutes", lambda t: t.minute, "m")
_part("getSeconds", lambda t: t.second, "s")
_part("getMilliseconds", lambda t: t.microsecond // 1000, "ms")
