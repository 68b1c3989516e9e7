"""The grammar of templates: a string to its literal parts and paths.

::

    text     = (anything | "{{{{" | template)*
    template = "{{" path ( "?" | "??" literal )? "}}" | "{{=" expression "}}"
    path     = name ( "." name | "[" index "]" | '["' anything '"]' )*
    literal  = JSON string, number, true, false, null, or 'a string'

An expression is CEL: see `specs.expressions`.
"""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec

from permaflow.plan import MISSING, Json
from specs.cel.tokens import SyntaxFault, closing
from specs.expressions import NAMES, Formula, Names, compile_formula, fault_message
from specs.paths import Path
from specs.reading import Report

MAX_TEMPLATE_BYTES = 16 * 1024
MAX_SEGMENTS = 64

_NAME = r"[\w$@][\w$@:-]*"
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME}|\[\s*(?:\d+|\"[^\"]*\"|'[^']*')\s*\])*")
_SEGMENT = re.compile(rf"\.?({_NAME})|\[\s*(?:(\d+)|\"([^\"]*)\"|'([^']*)')\s*\]")
_LITERAL = re.compile(
    r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^'\\]*)'|(-?\d{1,15}(?:\.\d{1,15})?|true|false|null)\b)"""
)
_SPACE = re.compile(r"\s*")


class TemplateFault(Exception):
    """A template is not one; the message says why and where. Never leaves `specs`.

    `at` is the character (from 0) of the text, where one is to blame.
    """

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


def parse_template(
    text: str, names: Names = NAMES, report: Report | None = None
) -> list[str | Path | Formula]:
    """The parts of a text. Raises `TemplateFault`; `report` is asked what a name may have meant."""
    if len(text) > MAX_TEMPLATE_BYTES or (
        len(text) * 4 > MAX_TEMPLATE_BYTES
        and len(text.encode("utf-8", "replace")) > MAX_TEMPLATE_BYTES
    ):
        raise TemplateFault(
            f"A text with templates in it may have {MAX_TEMPLATE_BYTES // 1024} KB; "
            "move the fixed part into a function or a record."
        )
    parts: list[str | Path | Formula] = []
    literal: list[str] = []
    at = 0
    while (start := text.find("{{", at)) >= 0:
        literal.append(text[at:start])
        if text.startswith("{{{{", start):
            literal.append("{{")
            at = start + 4
            continue
        part: Path | Formula
        if text.startswith("{{=", start):
            part, at = _expression(text, start, names, report)
        else:
            part, at = _path(text, start, names)
        if said := "".join(literal):
            parts.append(said)
        literal.clear()
        parts.append(part)
    literal.append(text[at:])
    if (said := "".join(literal)) or not parts:
        parts.append(said)
    return parts


def _expression(
    text: str, start: int, names: Names, report: Report | None
) -> tuple[Formula | Path, int]:
    """The expression of the template that opens at `start`, and where the text goes on after it."""
    first = start + 3
    source = ""
    try:
        end = closing(text, first)
        if end is None:
            raise _unclosed(start)
        source = text[first:end]
        formula = compile_formula(source, names, report)
        match formula.references:
            case ((path, _),) if path.text == source.strip():
                return path, end + 2
        return formula, end + 2
    except SyntaxFault as fault:
        # What is no word of an expression is found before its end is: then `at` counts from the
        # beginning of the text.
        at = first + fault.at if source else fault.at
        inner = source or text[first:].partition("}}")[0]
        shown = SyntaxFault(at - first, fault.message)
        raise TemplateFault(fault_message(inner, shown), at) from None


def _path(text: str, start: int, names: Names) -> tuple[Path, int]:
    """The path of the template that opens at `start`, and where the text goes on after it."""
    at = _skip(text, start + 2)
    match = _PATH.match(text, at)
    if match is None:
        raise _unexpected(text, start, at, "a path such as `trigger.record.name`")
    found = _resolve(match.group(), names)
    at = _skip(text, match.end())
    fallback: Json = MISSING
    over_null = False
    if text.startswith("??", at):
        literal = _LITERAL.match(text, at + 2)
        if literal is None:
            raise _unexpected(text, start, _skip(text, at + 2), 'a literal such as `"none"`')
        fallback, over_null, at = _literal(literal), True, _skip(text, literal.end())
    elif text.startswith("?", at):
        fallback, at = None, _skip(text, at + 1)
    if not text.startswith("}}", at):
        raise _unexpected(text, start, at, '`}}`, or before it `?` or `?? "literal"`')
    if fallback is MISSING:
        return found, at + 2
    return replace(found, fallback=fallback, over_null=over_null), at + 2


def parse_path(path: str) -> tuple[str, ...]:
    """The names of a path as written, the first out of `ROOTS`. Raises `TemplateFault`."""
    if not _PATH.fullmatch(path):
        raise TemplateFault("write names and indexes, as in `trigger.record.items[0].id`.")
    return _resolve(path, NAMES).segments


def _resolve(path: str, names: Names) -> Path:
    segments = tuple(path.split("."))
    if "[" in path:
        segments = tuple(
            next(group for group in match.groups() if group is not None)
            for match in _SEGMENT.finditer(path)
        )
    if len(segments) > MAX_SEGMENTS:
        raise TemplateFault(f"`{path[:40]}…` has more than {MAX_SEGMENTS} names.")
    resolve = names.roots.get(segments[0])
    if resolve is None:
        raise TemplateFault(
            f"`{path}` starts with `{segments[0]}`, which a template cannot look at; "
            f"it can look at {', '.join(names.roots)}."
        )
    try:
        return resolve(segments, path)
    except ValueError as error:
        raise TemplateFault(f"{error}.") from None


def _literal(match: re.Match[str]) -> Json:
    double, single, other = match.groups()
    if single is not None:
        return single
    source = other if double is None else f'"{double}"'
    try:
        return msgspec.json.decode(source)
    except msgspec.DecodeError as error:
        raise TemplateFault(f"`{source[:80]}` after `??` is not a JSON literal.") from error


def _unexpected(text: str, start: int, at: int, wanted: str) -> TemplateFault:
    if text.find("}}", start) < 0:
        return _unclosed(start)
    found = "the end of the text" if at >= len(text) else f"`{text[at]}`"
    message = (
        f"Unexpected {found} at character {at + 1}; expected {wanted}. A template looks up one "
        "path; an expression begins with `{{=`."
    )
    return TemplateFault(message, at)


def _unclosed(start: int) -> TemplateFault:
    message = (
        f"The `{{{{` at character {start + 1} is never closed by `}}}}`; "
        "write `{{{{` where `{{` is meant as text."
    )
    return TemplateFault(message, start)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
