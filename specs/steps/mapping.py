"""Mappings of the steps dialect: what each value is meant to be.

* A path or an expression that speaks of something known: `deal.name`, `step.0.$id`,
  `"Onboarding: " + deal.name`, `size(deal.items) * 2`.
* A template, as everywhere: `Hello {{deal.name}}`.
* `round-robin`: one of the assignees, each in turn.
* Anything else is what it says: `Call`, `https://example.com`, `2026-01-01`.

Text in double quotes is an expression, hence text without them. What looks like a path but begins
with a name that is nearly a known one is refused, so that a slip of the pen does not end up in a
record.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from permaflow.plan import Context, Json
from specs.cel.meaning import Resolve
from specs.cel.tokens import SyntaxFault
from specs.expressions import RUN_ROOTS, Formula, Names, compile_formula, fault_message
from specs.paths import Path, walk
from specs.reading import Report, shown, step_into

ROUND_ROBIN = "round-robin"
EVENT = "Event"
"""The object whose records are events: `{"type": "Deal.won", "data": {…}}`."""

_DOTTED = re.compile(r"([^\W\d]\w*)((?:\.[\w$@]+|\[\d+\])+)", re.ASCII)
_META = {
    "$id": ("id",),
    "id": ("id",),
    "$type": ("object",),
    "$version": ("version",),
    "$createdAt": ("created_at",),
    "$updatedAt": ("updated_at",),
}
"""What is known of a record beside its data."""


@dataclass(frozen=True, slots=True)
class RecordPath(Path):
    """A path into the record that started the run; into its `data`, if that is an event."""

    def look(self, context: Context) -> Json:
        if walk(context, ("trigger", "object")) == EVENT:
            data = walk(context, ("trigger", "record", "data"))
            if type(data) is dict:
                return walk(data, self.segments[2:])
        return Path.look(self, context)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A step that a mapping may speak of, and whether its output is a record."""

    id: str
    is_record: bool


def noun_root(noun: str) -> str:
    """The name of the record of an object in mappings: `Deal` is `deal`, `LineItem` `lineItem`."""
    name = noun.rpartition(".")[2]
    return name.lower() if name.isupper() else name[:1].lower() + name[1:]


def names_for(noun: str, earlier: Mapping[str, Earlier]) -> Names:
    """What mappings may speak of. `earlier` are the steps so far, by number and by id; it grows."""
    roots: dict[str, Resolve] = dict(RUN_ROOTS)
    for name in ("record", noun.rpartition(".")[2].lower(), noun_root(noun)):
        if name.isidentifier():
            roots.setdefault(name, _record_path)

    def of_step(segments: tuple[str, ...], text: str) -> Path:
        if len(segments) < 2:
            raise ValueError("`step` wants the number of a step, as in `step.0.$id`")
        found = earlier.get(segments[1])
        if found is None:
            later = segments[1].isdigit()
            raise ValueError(
                f"`{text}` speaks of a step that "
                + ("does not come before this one" if later else "does not exist")
            )
        rest = segments[2:]
        if found.is_record and rest:
            rest = ("record", *_META.get(rest[0], ("data", rest[0])), *rest[1:])
        elif found.is_record:
            rest = ("record",)
        return Path(("steps", found.id, "output", *rest), text)

    roots["step"] = of_step
    return Names(roots)


def _record_path(segments: tuple[str, ...], text: str) -> Path:
    rest = segments[1:]
    if rest[:1] == ("$id",):
        rest = ("id", *rest[1:])
    return RecordPath(("trigger", "record", *rest), text)


@dataclass(slots=True)
class Mapper:
    """Reads the mapping of one step. `nouns` are those of the other steps, in lower case."""

    names: Names
    report: Report
    turn: str
    """The expression that stands for one of the assignees."""
    nouns: Collection[str] = ()
    takes_turns: bool = False

    def config(self, value: Json, pointer: str) -> Json:
        """The mapping as a config: what is to be looked up, as templates."""
        match value:
            case str():
                return self.text(value, pointer)
            case dict():
                return {
                    name: self.config(part, step_into(pointer, name))
                    for name, part in value.items()
                }
            case list():
                return [self.config(part, f"{pointer}/{i}") for i, part in enumerate(value)]
            case _:
                return value

    def text(self, text: str, pointer: str) -> str:
        if "{{" in text:
            return text
        said = text.strip()
        if said == ROUND_ROBIN:
            self.takes_turns = True
            return template(self.turn)
        try:
            formula = compile_formula(said, self.names, self.report)
        except SyntaxFault as fault:
            if self.is_meant(said):
                at = fault.at + len(text) - len(text.lstrip())
                self.report.add(pointer, "bad_expression", fault_message(said, fault), at)
            else:
                self.look_for_slips(said, pointer)
            return text
        return template(said) if _speaks(said, formula) else text

    def is_meant(self, said: str) -> bool:
        """Whether text that is no expression was meant as one."""
        if said.startswith('"'):
            return True
        match = _DOTTED.match(said)
        return match is not None and match.group(1) in self.names.roots

    def look_for_slips(self, said: str, pointer: str) -> None:
        match = _DOTTED.fullmatch(said)
        if match is None:
            return
        name, rest = match.groups()
        guess = self.report.guess(name, self.names.roots)
        if name in self.nouns:
            guess = "speak of a step by its number, as in `step.0.$id`; "
        if guess or ".$" in rest:
            self.report.add(
                pointer,
                "unknown_name",
                f"There is no `{name}` here; {guess}a mapping can speak of "
                f"{', '.join(self.names.roots)}. Write {shown(said)} in double quotes if it is "
                "meant as text.",
                0,
            )


def _speaks(said: str, formula: Formula) -> bool:
    """Whether an expression speaks of anything; `2026-01-01` and `true` do not."""
    return bool(formula.references) or said.startswith('"')


def template(expression: str) -> str:
    """An expression as a string of a config. The line break ends a comment."""
    return f"{{{{= {expression}\n}}}}"
