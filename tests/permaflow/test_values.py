import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.errors import InputError, LimitError
from permaflow.values import HIGHEST, LOWEST, parse, plain

scalars = (
    st.none()
    | st.booleans()
    | st.integers(LOWEST, HIGHEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8"))
)
names = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20
)


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int


@given(values)
def test_json_stays_as_it_is(value):
    assert plain(value) == value
    assert parse(json.dumps(value)) == value
    assert parse(orjson.dumps(value), exact_decimals=True) == value


def test_what_has_one_obvious_form_takes_it():
    value = {
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "id": UUID(int=1),
        "colour": Colour.RED,
        "point": Point(1),
        "price": Decimal("1.10"),
        "pair": (1, 2),
    }

    assert plain(value) == {
        "when": "2026-01-02T00:00:00+00:00",
        "id": "00000000-0000-0000-0000-000000000001",
        "colour": "red",
        "point": {"x": 1},
        "price": "1.10",
        "pair": [1, 2],
    }


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [None, math.nan], {"a": b"x"}, 2**64, -(2**63) - 1]
)
def test_what_has_no_place_in_json_is_refused(value):
    with pytest.raises(InputError):
        plain(value)


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_nesting_has_a_limit_of_sixty_four():
    assert plain(nested(64)) == nested(64)
    for depth in (65, 200, 900, 5000):
        with pytest.raises(InputError):
            plain(nested(depth))
        with pytest.raises(InputError):
            parse("[" * depth + "]" * depth)


def test_a_cycle_is_refused():
    value = {}
    value["self"] = value

    with pytest.raises(InputError):
        plain(value)


def test_size_has_a_limit():
    with pytest.raises(LimitError):
        plain("x" * 100, max_bytes=101)
    assert plain("x" * 100, max_bytes=102)
    with pytest.raises(LimitError):
        parse(b" " * 11, max_bytes=10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9007199254740993", 9007199254740993),
        ("18446744073709551615", HIGHEST),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775808", LOWEST),
        ("-9223372036854775809", "-9223372036854775809"),
        ('{"id":123456789012345678901234567890}', {"id": "123456789012345678901234567890"}),
        ("1" * 5000, "1" * 5000),
        ("0.12345678901234567890", 0.12345678901234568),
        ("\ufeff{}", {}),
    ],
)
def test_no_integer_is_ever_rounded(text, value):
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_fractions_can_be_kept_exactly():
    assert parse("1234567890123456.789", exact_decimals=True) == "1234567890123456.789"
    assert parse("1234567890123456.5", exact_decimals=True) == 1234567890123456.5


@pytest.mark.parametrize(
    "text",
    ["NaN", "[NaN, 1234567890123456789]", "-Infinity", "1e400", "[1e400, 1234567890123456789]",
     '"\\u0000"',
     '{"\\u0000": 1}', '"\\ud800"', '["\\ud800", 1234567890123456789]', "", "{", b"\xff",
     b'"\xed\xa0\x80"', "'x'", "[1234567890123456789"],
)  # fmt: skip
def test_what_nobody_can_carry_is_refused(text):
    with pytest.raises(InputError):
        parse(text)
