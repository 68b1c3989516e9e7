"""What JSON may be, before it is parsed and after: the limits of documents and of request bodies.

Refused: nesting deeper than 64, integers outside 64 bits, numbers too large for a double or too
long to be meant, NaN and infinities, NUL characters, lone surrogates, and more bytes than allowed.
Of two members with the same name, the last one counts.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from typing import NoReturn

import orjson

from permaflow.errors import InputError, LimitError
from permaflow.plan import Json
from permaflow.values import HIGHEST, LOWEST, MAX_DEPTH
from specs.reading import Report, step_into

MAX_DOCUMENT_BYTES = 1_000_000
MAX_NODES = 2_000
MAX_EDGES = 10_000
MAX_TRIGGERS = 100
MAX_DIGITS = 400
"""No double needs more, and reading very long numbers takes time."""

# A number that wants a second look: an integer near or past 64 bits, or a great many digits. It
# may stand inside a string; the second look tells.
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_SUSPECT = b"0" * 19
_LONG = re.compile(rb"\d{%d}" % MAX_DIGITS)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALARS = frozenset({bool, type(None)})
_INNER = frozenset({dict, list, float})


def check_json_bytes(
    raw: bytes, *, max_bytes: int = MAX_DOCUMENT_BYTES, max_depth: int = MAX_DEPTH
) -> Json:
    """The JSON value in `raw`. Raises `LimitError` above a limit, `InputError` for what is no JSON.

    Takes 6 µs for an ordinary body of 1 KB; only what looks suspicious is looked at again.
    """
    if len(raw) > max_bytes:
        raise LimitError(f"The body has {len(raw):,} bytes; at most {max_bytes:,} are allowed.")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse(raw, error, max_depth)
    deep = raw.count(b"{") + raw.count(b"[") > max_depth and not _shallow(value, max_depth)
    if deep or b"\\u0000" in raw:
        _raise_first(value, max_depth)
    if _SUSPECT in raw.translate(_DIGITS):
        _check_numbers(raw, max_depth)
    return value


def shape_problems(value: Json, report: Report, *, max_depth: int = MAX_DEPTH) -> None:
    """Reports every place where a parsed value is no JSON that every part can carry."""
    if not _sound(value, max_depth):
        _inspect(value, report, max_depth)


def _sound(value: Json, max_depth: int) -> bool:
    """The quick look at a value that is fine, as nearly all are."""
    try:
        # Refuses lone surrogates and integers outside 64 bits, and shows NUL characters.
        if b"\\u0000" in orjson.dumps(value):
            return False
    except (TypeError, ValueError, RecursionError):
        return False
    return _shallow(value, max_depth)


def _shallow(value: Json, max_depth: int) -> bool:
    """Whether nesting is within the limit, and numbers are finite."""
    level = [value] if type(value) in _INNER else []
    for _ in range(max_depth):
        if not level:
            return True
        deeper: list[Json] = []
        for part in level:
            if type(part) is float:
                if not math.isfinite(part):
                    return False
            else:
                items = part.values() if type(part) is dict else part
                deeper += [item for item in items if type(item) in _INNER]
        level = deeper
    return not level


def _inspect(value: Json, report: Report, max_depth: int) -> None:
    """The thorough look, with a pointer to each fault."""
    stack: list[tuple[Json, str, int]] = [(value, "", 0)]
    while stack:
        part, pointer, depth = stack.pop()
        kind = type(part)
        if kind is dict or kind is list:
            if depth >= max_depth:
                report.add(pointer, "too_deep", f"Nesting may be {max_depth} levels deep.")
            elif kind is list:
                stack.extend(
                    (item, f"{pointer}/{index}", depth + 1)
                    for index, item in enumerate(part)
                    if type(item) not in _SCALARS
                )
            else:
                _members(part, pointer, depth + 1, stack, report)
        elif (fault := _fault(part)) is not None:
            report.add(pointer, *fault)


def _members(
    value: dict[str, Json],
    pointer: str,
    depth: int,
    stack: list[tuple[Json, str, int]],
    report: Report,
) -> None:
    for name, item in value.items():
        if type(name) is not str:
            report.add(pointer, "not_json", "The name of a member must be a string.")
        elif (fault := _text_fault(name)) is not None:
            report.add(pointer, "bad_text", fault)
        elif type(item) not in _SCALARS:
            stack.append((item, step_into(pointer, name), depth))


def _fault(value: Json) -> tuple[str, str] | None:
    """Code and message of what is wrong with a string or number."""
    kind = type(value)
    if kind is str:
        fault = _text_fault(value)
        return None if fault is None else ("bad_text", fault)
    if kind is int:
        return None if LOWEST <= value <= HIGHEST else ("bad_number", _TOO_LARGE)
    if kind is float:
        return None if math.isfinite(value) else ("bad_number", "A number must be finite.")
    if kind in _SCALARS:
        return None
    return "not_json", f"A {kind.__name__} has no place in JSON."


_TOO_LARGE = "An integer must fit into 64 bits; write larger ones as strings."


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "Text must not hold NUL characters."
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "Text must not hold lone surrogates."
    return None


def _raise_first(value: Json, max_depth: int) -> None:
    report = Report()
    shape_problems(value, report, max_depth=max_depth)
    for problem in report.problems:
        kind = LimitError if problem.code == "too_deep" else InputError
        raise kind(problem.message, pointer=problem.pointer)


class _TooLarge:
    """Stands for a number that does not fit."""


def _check_numbers(raw: bytes, max_depth: int) -> None:
    """Finds the integers that orjson made floats of, and numbers too long to be meant."""
    if _LONG.search(_STRING.sub(b'""', raw)):
        raise InputError(f"A number has more than {MAX_DIGITS} digits.")

    def whole(digits: str) -> Json:
        if len(digits) > 20:
            return _TooLarge()
        number = int(digits)
        return number if LOWEST <= number <= HIGHEST else _TooLarge()

    stack = [(json.loads(raw, parse_int=whole), "")]
    while stack:
        part, pointer = stack.pop()
        if type(part) is _TooLarge:
            raise InputError(_TOO_LARGE, pointer=pointer)
        if type(part) is list:
            stack.extend((item, f"{pointer}/{index}") for index, item in enumerate(part))
        elif type(part) is dict:
            stack.extend((item, step_into(pointer, name)) for name, item in part.items())


def _refuse(raw: bytes, error: orjson.JSONDecodeError, max_depth: int) -> NoReturn:
    """Says what is wrong with bytes that orjson refuses, as well as can be told."""
    reason = str(error)
    if "depth limit" in reason:
        raise LimitError(f"Nesting may be {max_depth} levels deep.") from None
    if "infinity" in reason:
        raise InputError("A number is too large for a double.") from None
    if raw.startswith(BOM_UTF8):
        raise InputError("This begins with a byte order mark: save it without one.") from None
    if "UTF-8" in reason:
        raise InputError(f"This is not UTF-8 ({_broken_place(raw)}).") from None
    if "surrogate" in reason:
        raise InputError(f"Text must not hold lone surrogates ({_place(raw, error)}).") from None
    raise InputError(f"This is not JSON: {error.msg} ({_place(raw, error)}).") from None


def _broken_place(raw: bytes) -> str:
    """Where bytes stop being UTF-8, which orjson does not tell."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
    return "somewhere"


def _place(raw: bytes, error: orjson.JSONDecodeError) -> str:
    return f"line {error.lineno}, column {error.colno}" if raw else "there is nothing"
