"""Paths into a run's context: how a template or a condition looks something up.

A walk uses `get` of mappings and views, and indexes of lists, and nothing else: no attribute of any
object can be reached. A value is handed on as it is, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from permaflow.changes import UNAVAILABLE
from permaflow.errors import EvaluationError
from permaflow.plan import MISSING, Context, Json

ROOTS = ("trigger", "steps", "loop", "error", "run")
"""What a path may start with."""

SCALARS = frozenset({str, int, float, bool, type(None)})
"""Types that have no `get` to walk on with."""


@dataclass(frozen=True, slots=True)
class Path:
    """Looks up one value; it keeps its type.

    `fallback` is what stands in for a path that leads nowhere (`MISSING`: an error). With
    `over_null` it also stands in for null.
    """

    segments: tuple[str, ...]
    text: str
    fallback: Json = MISSING
    over_null: bool = False

    def look(self, context: Context) -> Json:
        """The value, or `MISSING`; raises only if the source of the record left the value out."""
        value = walk(context, self.segments)
        if value == UNAVAILABLE and type(value) is str:
            raise EvaluationError(
                f"`{self.text}` is not known: the source did not send its value with this change. "
                "Let the source send whole records (in PostgreSQL: REPLICA IDENTITY FULL), or "
                "read the record in a step before."
            )
        return value

    def evaluate(self, context: Context) -> Json:
        value = self.look(context)
        if value is MISSING:
            if self.fallback is MISSING:
                raise EvaluationError(self._nowhere(context))
            return self.fallback
        if value is None and self.over_null:
            return self.fallback
        if type(value) not in SCALARS:
            self._check(value)
        return value

    def _check(self, value: Json) -> None:
        if type(value) is not dict and type(value) is not list:
            raise EvaluationError(
                f"`{self.text}` is not a value by itself; go on, as in `{self.text}.output`."
            )
        # Only what a source of changes sent can be incomplete, and that enters by the trigger.
        if self.segments[0] != "trigger":
            return
        stack = [(value, self.text)]
        while stack:
            holder, where = stack.pop()
            for key, part in holder.items() if type(holder) is dict else enumerate(holder):
                if part == UNAVAILABLE and type(part) is str:
                    raise EvaluationError(
                        f"`{self.text}` is not complete: the source did not send the value of "
                        f"`{where}.{key}` with this change. Name the fields that you need, or let "
                        "the source send whole records (in PostgreSQL: REPLICA IDENTITY FULL)."
                    )
                if type(part) is dict or type(part) is list:
                    stack.append((part, f"{where}.{key}"))

    def _nowhere(self, context: Context) -> str:
        for at in range(len(self.segments)):
            if walk(context, self.segments[: at + 1]) is MISSING:
                reason = _why(walk(context, self.segments[:at]), self.segments, at)
                return f"`{self.text}` leads nowhere: {reason}."
        return f"`{self.text}` leads nowhere."


def walk(value: Json, path: tuple[str, ...]) -> Json:
    """Where `path` leads from a mapping, a view or a JSON value; `MISSING` if nowhere."""
    for segment in path:
        kind = type(value)
        if kind is list:
            value = _item(value, segment)
        elif kind in SCALARS or value is MISSING:
            return MISSING
        else:
            value = value.get(segment, MISSING)
    return value


def _item(values: list[Json], segment: str) -> Json:
    if segment.isascii() and segment.isdigit() and len(segment) < 10:
        index = int(segment)
        if index < len(values):
            return values[index]
    return MISSING


def _why(holder: Json, segments: tuple[str, ...], at: int) -> str:
    segment = segments[at]
    if at == 0:
        return f"there is no `{segment}` here"
    name = f"`{'.'.join(segments[:at])}`" if at < 2 else f"`{segments[at - 1]}`"
    if type(holder) is list:
        return f"{name} is a list of {len(holder)} and has no `{segment}`"
    if type(holder) is dict:
        names = [str(key) for key in list(holder)[:12]]
        if not names:
            return f"{name} is empty"
        more = ", …" if len(holder) > len(names) else ""
        return f"{name} has no `{segment}`; it has {', '.join(names)}{more}"
    if type(holder) in SCALARS:
        what = "null" if holder is None else f"a {_KINDS[type(holder)]}"
        return f"{name} is {what} and has no `{segment}`"
    return f"{name} has no `{segment}`"


_KINDS: Mapping[type, str] = {str: "string", int: "number", float: "number", bool: "boolean"}
