"""Values of databases as JSON: nothing is rounded on the way."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import lossless


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value(value: Decimal) -> None:
    text = format(value, "f") if abs(value.adjusted()) < 400 else str(value)
    read = lossless.number(text)
    again = orjson.loads(orjson.dumps(read))
    written = again if isinstance(again, str) else repr(again)
    assert Decimal(written) == Decimal(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, max_value=10**10))
def test_a_sum_of_money_is_a_number(value: Decimal) -> None:
    if value > -(10**10):
        assert not isinstance(lossless.number(str(value)), str)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0.00", 0),
        ("150.00", 150),
        ("150.25", 150.25),
        ("9007199254740993", 9007199254740993),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775808", -9223372036854775808),
        ("-9223372036854775809", "-9223372036854775809"),
        ("0.1000000000000000000000000000000001", "0.1000000000000000000000000000000001"),
        ("1234567890123.45", 1234567890123.45),
        ("12345678901234.56", "12345678901234.56"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e400", "1e400"),
    ],
)
def test_number_is_a_json_number_where_that_is_exact(text: str, value: object) -> None:
    read = lossless.number(text)
    assert (read, type(read)) == (value, type(value))


def test_a_number_bomb_stays_as_long_as_it_was() -> None:
    assert lossless.parse(b"[1e131071]") == ["1e131071"]


def test_digits_inside_a_json_text_survive() -> None:
    raw = b'{"a": 9007199254740993, "b": 123456789012345678901, "c": 0.12345678901234567890}'
    assert lossless.parse(raw) == {
        "a": 9007199254740993,
        "b": "123456789012345678901",
        "c": "0.12345678901234567890",
    }


@pytest.mark.parametrize(
    "raw",
    [
        b'"a\\u0000b"',
        b'{"\\u0000": 1}',
        b"[" * 70 + b"]" * 70,
        b"[" * 900 + b"12345678901234567890" + b"]" * 900,
        b"[" * 5000 + b"12345678901234567890" + b"]" * 5000,
        b'[12345678901234567890, "\\ud800"]',
        b'[12345678901234567890, "\xff"]',
        b"NaN",
        b"",
    ],
)
def test_what_cannot_be_kept_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        lossless.parse(raw)


def test_what_only_looks_like_it_is_kept() -> None:
    assert lossless.parse(b'"\\\\u0000"') == "\\u0000"
    assert lossless.parse(b"[" * 64 + b"]" * 64) is not None
    assert lossless.parse(b'["' + b"[" * 100 + b'"]') == ["[" * 100]


@given(st.integers(-(10**18), 10**18))
def test_a_timestamp_reads_back(nanoseconds: int) -> None:
    text = lossless.iso_timestamp(nanoseconds)
    whole, _, fraction = text.partition(".")
    seconds = (datetime.fromisoformat(whole) - datetime.fromisoformat("1970-01-01")).total_seconds()
    assert int(seconds) * 10**9 + int(fraction.ljust(9, "0") or 0) == nanoseconds


def test_dates_reach_from_year_one_to_year_9999() -> None:
    assert lossless.iso_date(-719162) == "0001-01-01"
    assert lossless.iso_date(2932896) == "9999-12-31"
    assert lossless.iso_timestamp(-62135596800 * 10**9) == "0001-01-01T00:00:00"
    with pytest.raises(ValueError):
        lossless.iso_date(2932897)
