"""Durations and times as people write them: `90`, `"90s"`, `"1h30m"`, `"PT1H30M"`, RFC 3339."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from permaflow.errors import EvaluationError
from permaflow.plan import Context, Expression, Json
from specs.reading import kind_of, shown

LONGEST_SECONDS = 3_660 * 24 * 60 * 60
"""Ten years."""

DURATION_FORMS = "a number of seconds, `90s`, `1h30m` or `PT1H30M`"
INSTANT_FORMS = "an RFC 3339 time such as `2030-01-31T09:00:00Z`"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SHORT = re.compile(r"(?:\d{1,12}(?:\.\d{1,6})?\s*(?:ms|s|m|h|d|w)\s*)+", re.ASCII)
_SHORT_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)
_NUMBER = r"(\d{1,12}(?:[.,]\d{1,6})?)"
_ISO = re.compile(
    rf"P(?!$)(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
_ISO_UNITS = (604800.0, 86400.0, 3600.0, 60.0, 1.0)
_PLAIN = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d.*)?", re.ASCII)


def parse_duration(value: Json) -> float | None:
    """Seconds, or None if it is no duration from 0 to ten years. Months and years are refused."""
    if type(value) is int or type(value) is float:
        seconds = float(value) if -1 < value < 1e12 else math.nan
    elif type(value) is str and len(value) < 100:
        seconds = _seconds(value.strip())
    else:
        return None
    return seconds if 0 <= seconds <= LONGEST_SECONDS else None


def _seconds(text: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    lower = text.lower()
    if _SHORT.fullmatch(lower):
        return sum(float(n) * _UNITS[unit] for n, unit in _SHORT_PART.findall(lower))
    if iso := _ISO.fullmatch(text.upper()):
        return sum(
            float(part.replace(",", ".")) * unit
            for part, unit in zip(iso.groups(), _ISO_UNITS, strict=True)
            if part
        )
    return math.nan


def parse_instant(value: Json, zone: tzinfo = UTC) -> datetime | None:
    """A time in UTC, or None. A time without an offset, and a bare date, are of the zone.

    A time that its zone skips in spring is as much later as the clocks are put forward; of one
    that comes twice in autumn it is the first.
    """
    if type(value) is not str or not _INSTANT.fullmatch(value[:40]) or len(value) > 40:
        return None
    try:
        instant = datetime.fromisoformat(value)
        return (instant.replace(tzinfo=zone) if instant.tzinfo is None else instant).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration out of a template, as a number of seconds."""

    inner: Expression

    def evaluate(self, context: Context) -> float:
        value = self.inner.evaluate(context)
        seconds = parse_duration(value)
        if seconds is None:
            raise EvaluationError(
                f"The duration is {_named(value)}; it must be {DURATION_FORMS}, up to ten years."
            )
        return seconds


@dataclass(frozen=True, slots=True)
class Instant:
    """A time out of a template, in RFC 3339 and UTC. `zone` is that of a time without an offset."""

    inner: Expression
    zone: tzinfo = UTC

    def evaluate(self, context: Context) -> str:
        value = self.inner.evaluate(context)
        instant = parse_instant(value, self.zone)
        if instant is None:
            raise EvaluationError(f"The time is {_named(value)}; it must be {INSTANT_FORMS}.")
        return instant.isoformat()


def _named(value: Json) -> str:
    return shown(value) if type(value) in (str, int, float) else kind_of(value)
