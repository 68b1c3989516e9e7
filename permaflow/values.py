"""JSON values that every part of the system can carry: through PostgreSQL, NATS and a browser.

Refused everywhere: NaN and infinities, integers outside 64 bits, NUL characters and lone
surrogates, nesting deeper than 64.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from permaflow.errors import InputError, LimitError
from permaflow.plan import Json

MAX_BYTES = 16_000_000
MAX_DEPTH = 64
LOWEST = -(2**63)
HIGHEST = 2**64 - 1

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number as people write it, and neither `nan` nor `1_000`, which `float` takes as well."""

_long_number = re.compile(rb"\d{16}")


def plain(value: Any, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Json:
    """A JSON copy of `value` that shares nothing with it.

    Tuples become lists; dates, UUIDs and decimals become text; enums their values; dataclasses and
    pydantic models become objects. Raises `InputError` with the JSON pointer of what has no place
    in JSON, and `LimitError` above a limit.
    """
    try:
        encoded = orjson.dumps(value, default=_convert)
    except (TypeError, ValueError) as error:
        _inspect(value, "", max_depth)
        raise InputError(f"This is not a JSON value: {error}.") from None
    if len(encoded) > max_bytes:
        raise LimitError(
            f"The value takes {len(encoded):,} bytes as JSON; at most {max_bytes:,} are allowed."
        )
    if _suspect(encoded, max_depth):
        _inspect(value, "", max_depth)
    return orjson.loads(encoded)


def parse(
    data: bytes | str,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    exact_decimals: bool = False,
) -> Json:
    """The JSON value that an outside system wrote.

    Integers outside 64 bits become text, digit by digit, so that no identifier is ever rounded.
    With `exact_decimals` so do fractions that a double cannot hold. Raises `InputError` or
    `LimitError` for what cannot be carried.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if len(raw) > max_bytes:
        raise LimitError(f"The JSON takes {len(raw):,} bytes; at most {max_bytes:,} are allowed.")
    try:
        if _long_number.search(raw):
            number = _exact_float if exact_decimals else _float
            value = json.loads(
                raw.decode(), parse_int=_integer, parse_float=number, parse_constant=_refuse
            )
            value = orjson.loads(orjson.dumps(value))
        else:
            value = orjson.loads(raw)
    except RecursionError:
        raise LimitError(f"The JSON is nested deeper than {max_depth} levels.") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"This is not JSON: {error}.") from None
    if _suspect(raw, max_depth):
        _inspect(value, "", max_depth)
    return value


def _suspect(encoded: bytes, max_depth: int) -> bool:
    """Whether the value deserves the slow look: it may hide a NaN or a NUL, or be deep."""
    return (
        b"null" in encoded
        or b"\\u0000" in encoded
        or encoded.count(b"[") + encoded.count(b"{") > max_depth
    )


def _inspect(value: Any, pointer: str, depth: int) -> None:  # noqa: C901 - one case per kind
    match value:
        case None | bool():
            return
        case str():
            if "\0" in value:
                raise InputError("Text must not hold NUL characters.", pointer=pointer)
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise InputError("Text must not hold lone surrogates.", pointer=pointer)
        case Enum():
            _inspect(value.value, pointer, depth)
        case int():
            if not LOWEST <= value <= HIGHEST:
                raise InputError(
                    "An integer must fit into 64 bits; write larger ones as text.", pointer=pointer
                )
        case float():
            if not math.isfinite(value):
                raise InputError("A number must be finite.", pointer=pointer)
        case dict():
            if depth <= 0:
                raise LimitError("The value is nested too deeply.", pointer=pointer)
            for name, item in value.items():
                if not isinstance(name, str):
                    raise InputError(
                        f"The name of a member must be text, not {type(name).__name__}.",
                        pointer=pointer,
                    )
                _inspect(name, pointer, depth)
                _inspect(item, f"{pointer}/{escape(name)}", depth - 1)
        case list() | tuple():
            if depth <= 0:
                raise LimitError("The value is nested too deeply.", pointer=pointer)
            for index, item in enumerate(value):
                _inspect(item, f"{pointer}/{index}", depth - 1)
        case UUID() | datetime() | date() | time():
            return
        case _ if is_dataclass(value) and not isinstance(value, type):
            for name in value.__dataclass_fields__:
                _inspect(getattr(value, name, None), f"{pointer}/{escape(name)}", depth - 1)
        case _:
            try:
                converted = _convert(value)
            except TypeError as error:
                raise InputError(str(error), pointer=pointer) from None
            _inspect(converted, pointer, depth)


def escape(name: str) -> str:
    """A member's name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _convert(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case Decimal():
            return str(value)
    raise TypeError(f"A value of type {type(value).__name__} has no place in JSON.")


def _integer(digits: str) -> int | str:
    if len(digits) > 20:
        return digits
    number = int(digits)
    return number if LOWEST <= number <= HIGHEST else digits


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large for a double")
    return number


def _exact_float(digits: str) -> float | str:
    number = _float(digits)
    return number if Decimal(repr(number)) == Decimal(digits) else digits


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
