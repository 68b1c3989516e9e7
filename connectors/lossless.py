"""Values of databases as JSON, without loss.

A number of any size becomes a JSON number where that is exact: an integer of up to 64 bits, or a
decimal of up to 15 significant digits, which a double carries there and back. Everything else
becomes a string of its digits, so `9007199254740993` and `0.12345678901234567890` both survive;
so do `NaN` and `Infinity`, which JSON lacks.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation

import orjson

from permaflow.plan import Json

MAX_DEPTH = 64
LARGEST = 2**63 - 1
SMALLEST = -(2**63)

_EXACT_DIGITS = 15
_EXACT_FLOAT = 2**53
_LONG_NUMBER = re.compile(rb"[0-9.]{17}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ZERO = date(1970, 1, 1).toordinal()


def number(text: str) -> int | float | str:
    """A decimal number in text, as a JSON number where that is exact."""
    if len(text) <= _EXACT_DIGITS:
        try:
            value = float(text)
        except ValueError:
            return text
        if not math.isfinite(value):
            return text
        whole = int(value) if abs(value) < _EXACT_FLOAT else 0
        return whole if whole == value else value
    try:
        exact = Decimal(text)
    except InvalidOperation:
        return text
    return of_decimal(exact, text)


def of_decimal(exact: Decimal, text: str | None = None) -> int | float | str:
    """As `number`; `text` is what to give where no JSON number is exact."""
    if exact.is_finite() and abs(exact.adjusted()) < 308:
        if exact == exact.to_integral_value():
            whole = int(exact)
            if SMALLEST <= whole <= LARGEST:
                return whole
        elif len(_significant(exact)) <= _EXACT_DIGITS:
            return float(exact)
    return format(exact, "f") if text is None else text


def _significant(exact: Decimal) -> str:
    return "".join(map(str, exact.as_tuple().digits)).rstrip("0")


def floating(text: str) -> float | str:
    """A double in text; NaN and the infinities stay text."""
    value = float(text)
    return value if math.isfinite(value) else text


def parse(raw: bytes, *, exact: bool = True) -> Json:
    """A JSON text as a value. Raises ValueError for what the engine cannot keep.

    Without `exact`, which costs more, numbers are read as 64-bit integers and as doubles.
    """
    if exact and _LONG_NUMBER.search(raw) is not None:
        value = _parse_exactly(raw)
    else:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if not exact or "infinity" not in str(error):
                raise
            value = _parse_exactly(raw)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        check_depth(value)
    if b"\\u0000" in raw and "\\u0000" in orjson.dumps(value).replace(b"\\\\", b"").decode():
        raise ValueError("a string holds the character NUL, which PostgreSQL cannot store")
    return value


def _parse_exactly(raw: bytes) -> Json:
    try:
        value = json.loads(
            raw.decode(), parse_int=number, parse_float=number, parse_constant=_refuse
        )
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    check_depth(value)
    try:
        orjson.dumps(value)
    except TypeError:  # json lets half a surrogate pair pass.
        raise ValueError("a string holds half of a surrogate pair") from None
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def check_depth(value: Json) -> None:
    """Raises ValueError if `value` is nested deeper than the engine takes."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, (dict, list)))
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


# --- times --------------------------------------------------------------------------------------


def iso_date(days: int) -> str:
    """Days since 1970 as an ISO date. Raises OverflowError or ValueError outside years 1-9999."""
    return date.fromordinal(_DAY_ZERO + days).isoformat()


def iso_time(nanoseconds: int) -> str:
    """Nanoseconds since midnight as `HH:MM:SS`, with as many digits after the point as needed."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:09}".rstrip("0") if fraction else text


def iso_timestamp(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as an ISO time without a zone."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    return f"{text}.{fraction:09}".rstrip("0") if fraction else text
