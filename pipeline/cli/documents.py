"""Documents in files: read, and checked as the gateway would, without one."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from permaflow.errors import InputError
from permaflow.plan import Json, Problem
from pipeline.cli.positions import excerpt, position
from pipeline.cli.show import CommandError

MEMBER = "definition"
STDIN = "standard input"
_PLACE = re.compile(r"line (\d+), column (\d+)")
_MEMBERS = ("description", "trigger_type")


@dataclass(frozen=True, slots=True)
class Document:
    """A file. `at` is the pointer to the document within it: "" or "/definition"."""

    file: str
    text: str
    value: Json
    at: str

    @property
    def name(self) -> str:
        """What the file calls the workflow, else the name of the file. Raises `CommandError`."""
        given = self.value.get("name") if isinstance(self.value, dict) else None
        if isinstance(given, str) and given:
            return given
        if self.file == STDIN:
            raise CommandError("What comes on standard input says no `name`: give it by --name.")
        return Path(self.file).stem

    @property
    def definition(self) -> Json:
        return self.value[MEMBER] if self.at else self.value

    def body(self, name: str) -> bytes:
        """The request's body."""
        body = {"name": name, MEMBER: self.definition}
        if self.at:
            body |= {each: self.value[each] for each in _MEMBERS if each in self.value}
        return orjson.dumps(body)


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem (or a warning) with its place in the file."""

    line: int
    column: int
    problem: Problem
    warning: bool = False
    excerpt: tuple[str, ...] = ()
    """The line of the file, and below it a caret at the column."""

    def __str__(self) -> str:
        where = f" (at {self.problem.pointer})" if self.problem.pointer else ""
        kind = "warning: " if self.warning else ""
        return f"{self.line}:{self.column}: {kind}{self.problem.message}{where}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a file."""

    file: str
    dialect: str
    findings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        return all(finding.warning for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {"problems": [], "warnings": []}
        for each in self.findings:
            found["warnings" if each.warning else "problems"].append(
                {
                    "pointer": each.problem.pointer,
                    "code": each.problem.code,
                    "message": each.problem.message,
                    "line": each.line,
                    "column": each.column,
                    "excerpt": list(each.excerpt),
                }
            )
        return {"file": self.file, "valid": self.valid, "dialect": self.dialect, **found}


def read(path: Path) -> Document:
    """A document from a file, or from standard input. Raises `CommandError` if it is none."""
    from specs.json_limits import check_json_bytes

    name = STDIN if str(path) == "-" else str(path)
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.", code="file") from error
    try:
        value = check_json_bytes(raw)
    except InputError as error:
        where = f" (at {error.pointer})" if error.pointer else ""
        shown = "\n".join(("", *_broken(raw, str(error))))
        raise CommandError(f"{name}: {error}{where}{shown}", code="invalid_json") from error
    wrapped = isinstance(value, dict) and isinstance(value.get(MEMBER), dict)
    return Document(name, raw.decode(), value, f"/{MEMBER}" if wrapped else "")


def _broken(raw: bytes, message: str) -> tuple[str, ...]:
    """The line at which a text stops being JSON, if the message says which."""
    match = _PLACE.search(message)
    if match is None:
        return ()
    return excerpt(raw.decode("utf-8", "replace"), int(match[1]), int(match[2]))


def check(document: Document) -> Report:
    """Everything that the gateway would say of a document, by its place in the file."""
    from pipeline import builtins
    from pipeline.gateway.documents import check_document
    from pipeline.settings import load_settings

    settings = load_settings()
    types = builtins.task_types(settings)
    checked = check_document(document.definition, types, settings.limits)
    findings = [
        *(_place(document, problem, False) for problem in checked.problems),
        *(_place(document, warning, True) for warning in checked.warnings),
    ]
    findings.sort(key=lambda each: (each.line, each.column))
    return Report(document.file, checked.dialect, tuple(findings))


def _place(document: Document, problem: Problem, warning: bool) -> Finding:
    pointer = document.at + problem.pointer
    line, column = position(document.text, pointer, problem.at)
    shown = excerpt(document.text, line, column)
    return Finding(line, column, replace(problem, pointer=pointer), warning, shown)
