"""Templates: `{{trigger.record.name}}` inside the strings of a config.

One template looks up one path, or, with `{{= …}}`, is an expression (`specs.expressions`).

* A string that is one template keeps the value's type: `"{{trigger.record.amount}}"` is a number.
  Inside text, strings stand as they are and everything else as JSON.
* A path starts at `trigger`, `steps`, `loop`, `error` or `run`, and goes on by names and indexes:
  `steps.my-step.output.items.0.id`, `items[0]`, `["any name"]`.
* A path that leads nowhere is an error, unless it is written `{{path?}}` (null; inside text,
  nothing) or `{{path ?? "literal"}}` (the JSON literal; also in place of null).
* `{{{{` stands for a literal `{{`. A looked-up value is data: it is never read as a template.

A compiled config is either plain JSON, or an expression that makes the plain JSON for a run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from permaflow.errors import DocumentError, EvaluationError
from permaflow.plan import MISSING, Constant, Context, Expression, Json
from specs.cel.values import Fault, finished
from specs.expressions import NAMES, Formula, Names, show_references
from specs.paths import SCALARS, Path
from specs.reading import Report, step_into
from specs.template_syntax import TemplateFault, parse_template

MAX_TEXT_BYTES = 256 * 1024
MAX_CONFIG_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Text:
    """Text with paths and expressions in it."""

    parts: tuple[str | Path | Formula, ...]

    def evaluate(self, context: Context) -> str:
        pieces: list[str] = []
        size = 0
        for part in self.parts:
            piece = part if type(part) is str else _as_text(part, context)  # type: ignore[arg-type]
            size += len(piece)
            if size > MAX_TEXT_BYTES:
                raise EvaluationError(_TOO_LONG)
            pieces.append(piece)
        text = "".join(pieces)
        if size * 4 > MAX_TEXT_BYTES and len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES:
            raise EvaluationError(_TOO_LONG)
        return text


_TOO_LONG = (
    f"A text with templates in it became longer than {MAX_TEXT_BYTES // 1024} KB; "
    'hand large values on whole, as in `"{{steps.a.output}}"`.'
)


def _as_text(part: Path | Formula, context: Context) -> str:
    value = part.evaluate(context)
    if type(value) is str:
        return value
    if isinstance(part, Formula):
        return _written(value, part.source)
    if value is None and part.fallback is None and part.look(context) is MISSING:
        return ""
    return _written(value, part.text)


def _written(value: Json, source: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EvaluationError(f"`{source}` cannot be written as JSON.") from error


Template = Path | Formula | Text


@dataclass(frozen=True, slots=True)
class Fields:
    """An object some of whose values are expressions."""

    plain: Mapping[str, Json]
    parts: tuple[tuple[str, Expression], ...]
    """`plain` holds every key, in the order of the document; `parts` replace some values."""

    def evaluate(self, context: Context) -> Json:
        values = dict(self.plain)
        for name, part in self.parts:
            values[name] = part.evaluate(context)
        return values


@dataclass(frozen=True, slots=True)
class Items:
    """An array some of whose values are expressions."""

    plain: tuple[Json, ...]
    parts: tuple[tuple[int, Expression], ...]

    def evaluate(self, context: Context) -> Json:
        values = list(self.plain)
        for index, part in self.parts:
            values[index] = part.evaluate(context)
        return values


@dataclass(frozen=True, slots=True)
class Bounded:
    """A config with several templates, which together must not make more than 16 MB."""

    whole: Expression
    paths: tuple[Path, ...]
    limit: int = MAX_CONFIG_BYTES
    computed: bool = False
    """Whether there are expressions: then what came out is measured, too."""

    def evaluate(self, context: Context) -> Json:
        total = 0
        sizes: dict[int, int] = {}
        for path in self.paths:
            value = path.look(context)
            if type(value) is str:
                total += len(value)
            elif type(value) is dict or type(value) is list:
                size = sizes.get(id(value))
                if size is None:
                    size = sizes[id(value)] = _size(value, path)
                total += size
            if total > self.limit:
                raise EvaluationError(self._too_large())
        value = self.whole.evaluate(context)
        if self.computed:
            try:
                return finished(value, self.limit)
            except Fault:
                raise EvaluationError(self._too_large()) from None
        return value

    def _too_large(self) -> str:
        return (
            f"The templates of this config make more than {self.limit // 1024 // 1024} MB; "
            "hand on only what the step needs."
        )


def _size(value: Json, path: Path) -> int:
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise EvaluationError(f"`{path.text}` cannot be written as JSON.") from error


Config = Path | Formula | Text | Fields | Items | Bounded


def render(config: Json, context: Context) -> Json:
    """The plain JSON that a compiled config stands for; one without templates comes back as is."""
    if isinstance(config, Path | Formula | Text | Fields | Items | Bounded | Constant):
        return config.evaluate(context)
    return config


# --- compiling ----------------------------------------------------------------------------------


def compile_template(text: str) -> Constant | Template:
    """Raises `DocumentError` with one problem, whose pointer is empty."""
    report = Report()
    compiled = read_template(text, "", report)
    if report.problems:
        raise DocumentError(report.problems, report.problems[0].message)
    return Constant(compiled) if isinstance(compiled, str) else compiled


def compile_config(value: Json) -> Json:
    """`value` with its templates compiled; the same object if there are none.

    Raises `DocumentError` with every problem; pointers are relative to `value`.
    """
    report = Report()
    compiled = read_config(value, "", report)
    if report.problems:
        raise DocumentError(report.problems)
    return compiled


Look = Callable[[Path, str], None]
"""Is shown every path of a template, with the pointer of the string it stands in."""


def read_template(
    text: str, pointer: str, report: Report, look: Look | None = None, names: Names = NAMES
) -> str | Template:
    """A string without templates comes back as the text that it stands for."""
    if "{{" not in text:
        return text
    try:
        parts = parse_template(text, names, report)
    except TemplateFault as bad:
        report.add(pointer, "bad_template", str(bad), bad.at)
        return text
    for part in parts:
        if isinstance(part, Formula):
            show_references(part, pointer, look)
        elif not isinstance(part, str) and look is not None:
            look(part, pointer)
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, str) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))
    return Text(tuple(parts))


def read_config(
    value: Json,
    pointer: str,
    report: Report,
    look: Look | None = None,
    names: Names = NAMES,
    verbatim: Collection[str] = (),
) -> Json:
    """Like `compile_config`, but tells `report`. `value` is at most 64 levels deep; its members
    that are `verbatim` stay as they are.
    """
    reading = _Reading(report, look, names)
    compiled = reading.read(value, pointer, verbatim)
    if compiled is not value and len(reading.paths) + 2 * reading.computed > 1:
        return Bounded(compiled, tuple(reading.paths), computed=reading.computed)
    return compiled


@dataclass(slots=True)
class _Reading:
    """A config that is being read."""

    report: Report
    look: Look | None
    names: Names
    paths: list[Path] = field(default_factory=list)
    computed: bool = False

    def see(self, path: Path, pointer: str) -> None:
        self.paths.append(path)
        if self.look is not None:
            self.look(path, pointer)

    def read(self, value: Json, pointer: str, verbatim: Collection[str] = ()) -> Json:
        kind = type(value)
        if kind is str:
            read = read_template(value, pointer, self.report, self.see, self.names)
            self.computed = self.computed or "{{=" in value
            return read
        if kind is dict:
            changed: dict[str, Json] = {}
            for name, part in value.items():
                if name not in verbatim and not _is_plain(part):
                    compiled = self.read(part, step_into(pointer, name))
                    if compiled is not part:
                        changed[name] = compiled
            return _object(value, changed) if changed else value
        if kind is list:
            swapped: dict[int, Json] = {}
            for index, part in enumerate(value):
                if not _is_plain(part):
                    compiled = self.read(part, f"{pointer}/{index}")
                    if compiled is not part:
                        swapped[index] = compiled
            return _array(value, swapped) if swapped else value
        return value


def _is_plain(value: Json) -> bool:
    kind = type(value)
    return "{{" not in value if kind is str else kind in SCALARS


_JSON = SCALARS | {dict, list}


def _object(value: dict[str, Json], changed: dict[str, Json]) -> Json:
    plain = {**value, **changed}
    parts = tuple((name, part) for name, part in changed.items() if type(part) not in _JSON)
    if not parts:
        return plain
    for name, _ in parts:
        plain[name] = None
    return Fields(plain, parts)


def _array(value: list[Json], changed: dict[int, Json]) -> Json:
    plain = list(value)
    for index, part in changed.items():
        plain[index] = part
    parts = tuple((index, part) for index, part in changed.items() if type(part) not in _JSON)
    if not parts:
        return plain
    for index, _ in parts:
        plain[index] = None
    return Items(tuple(plain), parts)
