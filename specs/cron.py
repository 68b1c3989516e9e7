"""Cron expressions: whether one says when, and if not, which part is to blame.

Five fields (minute, hour, day, month, weekday), or six with seconds in front, or a name such as
`@daily`. A field is `*`, a number, a range `a-b`, with a step `/n`, or several of these with
commas; months and weekdays have names. `L` is the last day of the month and `LW` its last weekday;
of weekdays there are `5L` (the last Friday) and `1#2` (the second Monday).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAMES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly"})
FORM = (
    "five fields (minute, hour, day, month, weekday) as in `0 9 * * 1-5`, or six with seconds in "
    "front"
)
MAX_CHARACTERS = 500

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()
    special: re.Pattern[str] | None = None

    def number(self, text: str) -> int | None:
        """What a number or a name stands for, if it is one of this field."""
        if text in self.words:
            return self.words.index(text) + self.least
        if not re.fullmatch(r"\d{1,3}", text, re.ASCII):
            return None
        return number if self.least <= (number := int(text)) <= self.most else None


_WEEKDAY = re.compile(rf"([0-7]|{'|'.join(_DAYS)})(l|#[1-5])", re.ASCII)
_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31, special=re.compile("lw?")),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _Field("weekday", 0, 7, tuple(_DAYS), _WEEKDAY),
)


def cron_fault(text: str) -> str | None:
    """What is wrong with a cron expression, as a sentence; None if nothing is."""
    if text in NAMES:
        return None
    parts = text.lower().split()
    if len(text) > MAX_CHARACTERS or len(parts) not in (5, 6):
        return f"It is no cron expression; write {FORM}."
    found: dict[str, set[int] | None] = {}
    for field, part in zip(_FIELDS[-len(parts) :], parts, strict=True):
        numbers: set[int] | None = set()
        for item in part.split(","):
            if field.special is not None and field.special.fullmatch(item):
                numbers = None
                continue
            named = _numbers(field, item)
            if named is None:
                return (
                    f"`{item[:60]}` is no {field.name}; a {field.name} is from {field.least} to "
                    f"{field.most}. Write {FORM}."
                )
            if numbers is not None:
                numbers |= named
        found[field.name] = numbers
    days, months = found["day"], found["month"]
    if days and months and parts[-1] == "*" and min(days) > max(_LENGTHS[m - 1] for m in months):
        return f"The day {min(days)} never comes in these months."
    return None


def _numbers(field: _Field, item: str) -> set[int] | None:
    """The numbers that one part of a field stands for; None if it is none."""
    span, slash, step = item.partition("/")
    if slash and not re.fullmatch(r"[1-9]\d{0,2}", step, re.ASCII):
        return None
    by = int(step) if slash else 1
    if span == "*":
        return set(range(field.least, field.most + 1, by))
    first, dash, last = span.partition("-")
    begin = field.number(first)
    end = field.number(last) if dash else (field.most if slash else begin)
    if begin is None or end is None or end < begin:
        return None
    return set(range(begin, end + 1, by))
