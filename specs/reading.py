"""Reading documents: every problem at once, each with a JSON pointer and a sentence.

Nothing here raises, whatever JSON it is shown.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from permaflow.plan import Json, Problem

MAX_PROBLEMS = 200
"""More are counted, not told: nobody reads on, and an answer has to stay small."""

MAX_SUGGESTIONS = 50
MAX_SUGGESTED = 60
MAX_CHOICES = 200


@dataclass(slots=True)
class Report:
    """The problems found so far."""

    problems: list[Problem] = field(default_factory=list)
    left_out: int = 0

    def add(self, pointer: str, code: str, message: str, at: int | None = None) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(pointer, code, message, at))
        else:
            self.left_out += 1

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem.pointer, problem.code, problem.message, problem.at)

    def guess(self, name: object, known: Iterable[str]) -> str:
        """`did you mean …? `, or nothing if nothing is near.

        Of many problems only the first get one: a document of 1 MB can hold 10,000 wrong names.
        """
        text = str(name).lower()
        if len(self.problems) >= MAX_SUGGESTIONS or len(text) > MAX_SUGGESTED:
            return ""
        slack = 2 + len(text) // 4
        choices = {c.lower(): c for c in known if abs(len(c) - len(text)) <= slack}
        if len(choices) > MAX_CHOICES:
            choices = {low: c for low, c in choices.items() if low[:3] == text[:3]}
            choices = dict(islice(choices.items(), MAX_CHOICES))
        near = difflib.get_close_matches(text, choices, n=1, cutoff=0.6)
        return f"did you mean `{choices[near[0]]}`? " if near else ""

    def finish(self) -> tuple[Problem, ...]:
        if not self.left_out:
            return tuple(self.problems)
        rest = Problem("", "more_problems", f"{self.left_out} more problems are not listed.")
        return (*self.problems, rest)


def step_into(pointer: str, name: object) -> str:
    """The pointer to a member (RFC 6901)."""
    text = str(name)
    if "~" in text or "/" in text:
        text = text.replace("~", "~0").replace("/", "~1")
    return f"{pointer}/{text}"


def kind_of(value: Json) -> str:
    """What a JSON value is, in words that follow `is`."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return "not JSON"


def shown(value: object) -> str:
    """A name out of a document, short enough for a sentence."""
    text = str(value)
    return f"`{text if len(text) <= 60 else text[:59] + '…'}`"


@dataclass(slots=True)
class Fields:
    """One JSON object that is being read. Every method reports what is wrong and goes on."""

    values: Mapping[str, Json]
    pointer: str
    report: Report

    def at(self, name: str) -> str:
        return step_into(self.pointer, name)

    def objects(self, values: Json, name: str, what: str) -> Iterator[tuple[int, Fields]]:
        """The objects that the member `name` holds, read by now as `values`: an array of them, or
        one by itself. What is no object is reported; `what` is what it should have been.
        """
        at, several = self.at(name), type(values) is list
        for index, value in enumerate(values if several else [values]):
            place = f"{at}/{index}" if several else at
            if type(value) is dict:
                yield index, Fields(value, place, self.report)
            else:
                message = f"{what} is an object, but this is {kind_of(value)}."
                self.report.add(place, "wrong_type", message)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def problem(self, name: str, code: str, message: str) -> None:
        self.report.add(self.at(name) if name else self.pointer, code, message)

    def only(self, known: Collection[str], tolerated: Collection[str] = ()) -> None:
        """Reports fields that nobody reads; names with `x-` are the user's own."""
        for name in self.values:
            if name in known or name in tolerated or name.startswith("x-"):
                continue
            self.problem(
                name,
                "unknown_field",
                f"There is no field {shown(name)} here; {self.report.guess(name, known)}"
                f"the fields are {', '.join(sorted(known))}.",
            )

    def text(self, name: str, *, required: bool = False) -> str | None:
        value = self.values.get(name)
        if value is None:
            if required:
                self.missing(name, "a string")
            return None
        if type(value) is not str:
            self.wrong(name, "a string")
            return None
        if required and not value:
            self.problem(name, "empty", f"`{name}` must not be empty.")
            return None
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        if value in choices:
            return value
        self.problem(
            name,
            "bad_value",
            f"`{name}` is {shown(value)}; {self.report.guess(value, choices)}"
            f"it is one of {', '.join(sorted(choices))}.",
        )
        return default

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            self.wrong(name, "true or false")
            return default
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """None if it is absent or no number; ends are allowed."""
        value = self.values.get(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not math.isfinite(value):
            self.wrong(name, "a number")
            return None
        if not least <= value <= most:
            self.problem(name, "out_of_range", f"`{name}` must be from {least:,g} to {most:,.15g}.")
            return None
        return float(value) if type(value) is float else value

    def whole(self, name: str, least: int, most: int, default: int) -> int:
        value = self.number(name, least, most)
        if value is None:
            return default
        if value != int(value):
            self.wrong(name, "a whole number")
            return default
        return int(value)

    def array(self, name: str, *, required: bool = False) -> list[Json]:
        value = self.values.get(name)
        if value is None:
            if required:
                self.missing(name, "an array")
            return []
        if type(value) is not list:
            self.wrong(name, "an array")
            return []
        return value

    def object(self, name: str, *, required: bool = False) -> dict[str, Json]:
        value = self.values.get(name)
        if value is None:
            if required:
                self.missing(name, "an object")
            return {}
        if type(value) is not dict:
            self.wrong(name, "an object")
            return {}
        return value

    def missing(self, name: str, wanted: str) -> None:
        self.problem("", "missing_field", f"`{name}` is missing; give {wanted}.")

    def wrong(self, name: str, wanted: str) -> None:
        self.problem(
            name,
            "wrong_type",
            f"`{name}` must be {wanted}, but it is {kind_of(self.values.get(name))}.",
        )
