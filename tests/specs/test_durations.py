from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.errors import EvaluationError
from permaflow.plan import Constant, Json
from specs.durations import LONGEST_SECONDS, Instant, Seconds, parse_duration, parse_instant


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90),
        (0, 0),
        (1.5, 1.5),
        ("90", 90),
        ("90s", 90),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("PT1H30M", 5400),
        ("PT0.5S", 0.5),
        ("P1DT1S", 86_401),
        ("P2W", 1_209_600),
        ("pt5m", 300),
    ],
)
def test_durations_are_read_as_people_write_them(value: Json, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "P",
        "PT",
        "P1Y",
        "P1M",
        "5 parsecs",
        "-5",
        -1,
        "1e9",
        float("nan"),
        float("inf"),
        10**30,
        LONGEST_SECONDS + 1,
        "9" * 50,
        True,
        None,
        [],
        {},
        "5m!",
        "٣s",
    ],
)
def test_what_is_no_duration_is_refused(value: Json) -> None:
    assert parse_duration(value) is None


def test_times_are_aware_and_in_utc() -> None:
    noon = datetime(2030, 1, 31, 12, tzinfo=UTC)
    for text in ("2030-01-31T12:00:00Z", "2030-01-31T14:00:00+02:00", "2030-01-31T12:00:00"):
        assert parse_instant(text) == noon
    assert parse_instant("2030-01-31") == datetime(2030, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", ["", "tomorrow", "20300131", "2030-13-01", "0001-01-01T00:00:00+14:00", 5, None]
)
def test_what_is_no_time_is_refused(value: Json) -> None:
    assert parse_instant(value) is None


def test_durations_and_times_out_of_templates() -> None:
    assert Seconds(Constant("5m")).evaluate({}) == 300
    assert (
        Instant(Constant("2030-01-31T14:00:00+02:00")).evaluate({}) == "2030-01-31T12:00:00+00:00"
    )
    with pytest.raises(EvaluationError, match="`soon`"):
        Seconds(Constant("soon")).evaluate({})
    with pytest.raises(EvaluationError, match="is null"):
        Instant(Constant(None)).evaluate({})


@given(st.text(max_size=50) | st.integers() | st.floats())
def test_nothing_makes_them_raise(value: Json) -> None:
    seconds = parse_duration(value)
    assert seconds is None or 0 <= seconds <= LONGEST_SECONDS
    parse_instant(value)
