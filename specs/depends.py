"""`depends`: `auto-approval.SUCCESS || manual-approval.SUCCESS`.

::

    or    = and ( "||" and )*
    and   = unary ( "&&" unary )*
    unary = "!" unary | "(" or ")" | ref
    ref   = name ( "." ( status | port ) )?
    name  = letters, digits, "_" and "-", or "any name" in quotes

A bare name means `name.SUCCESS` (in Argo Workflows it would be true of a skipped task, too). A
status is SUCCESS, FAILED (also true of a task that timed out), TIMED_OUT, SKIPPED, CANCELLED or
COMPLETED (it ran, and succeeded or failed); the names that Argo gives them are understood as well.
A port is one of the branches of a condition, a switch or an approval: `check.true`,
`route."gold customers"`, `ask.timed_out`. What a port is called, letter for letter, is that port;
statuses may be written in small letters elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from permaflow.errors import DocumentError
from permaflow.plan import ANY_RESULT, FAILURES, TAKEN, And, Not, Or, Outcome, Problem, Ref, When
from specs.reading import shown

MAX_CHARACTERS = 16 * 1024
MAX_TERMS = 500
MAX_NESTING = 32

STATUSES = {
    "SUCCESS": TAKEN,
    "FAILED": FAILURES,
    "SKIPPED": frozenset({Outcome.SKIPPED}),
    "CANCELLED": frozenset({Outcome.CANCELLED}),
    "TIMED_OUT": frozenset({Outcome.TIMED_OUT}),
    "COMPLETED": ANY_RESULT,
}
_ALIASES = {
    "SUCCEEDED": "SUCCESS",
    "ERRORED": "FAILED",
    "OMITTED": "SKIPPED",
    "CANCELED": "CANCELLED",
    "TIMEDOUT": "TIMED_OUT",
}

Ports = Callable[[str], Collection[str]]
"""The ports of a node, by its name."""

_TOKEN = re.compile(r"\s*(?:(&&|\|\||[!().])|(\w[\w-]*)|\"([^\"]*)\")")
_SPACE = re.compile(r"\s*")


class DependsFault(Exception):
    """A `depends` cannot be read; the message says why and where. Never leaves `specs`."""


def compile_depends(text: str, ports: Ports | None = None) -> When:
    """Raises `DocumentError` with one problem, whose pointer is empty."""
    try:
        return parse_depends(text, ports)
    except DependsFault as fault:
        raise DocumentError([Problem("", "bad_depends", str(fault))], str(fault)) from None


def parse_depends(text: str, ports: Ports | None = None) -> When:
    """Raises `DependsFault`."""
    if len(text) > MAX_CHARACTERS:
        raise DependsFault(f"`depends` may have {MAX_CHARACTERS:,} characters.")
    parser = _Parser(text, _tokens(text), ports or (lambda _: ()))
    when = parser.either(0)
    if parser.now.text:
        raise parser.unexpected("`&&`, `||` or the end")
    return when


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`op`, `name`, `quoted` or `end`."""
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            wrong = _SPACE.match(text, at)
            where = wrong.end() if wrong else at
            character = text[where]
            hint = f" Write `{character * 2}`." if character in "&|" else ""
            raise DependsFault(
                f"`{character}` at character {where + 1} of `depends` means nothing here.{hint} "
                'Names with other characters than letters, digits, "_" and "-" stand in quotes.'
            )
        op, name, quoted = match.groups()
        kind, value = ("op", op) if op else ("name", name) if name else ("quoted", quoted)
        tokens.append(_Token(kind, value, match.start(match.lastindex or 0)))
        at = match.end()
    tokens.append(_Token("end", "", len(text)))
    if len(tokens) > 4 * MAX_TERMS:
        raise DependsFault(f"`depends` may have {MAX_TERMS} terms.")
    return tokens


@dataclass(slots=True)
class _Parser:
    text: str
    tokens: list[_Token]
    ports: Ports
    position: int = 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.position]

    def take(self, op: str) -> bool:
        if self.now.kind == "op" and self.now.text == op:
            self.position += 1
            return True
        return False

    def unexpected(self, wanted: str) -> DependsFault:
        token = self.now
        if token.kind == "end":
            return DependsFault(f"`depends` ends too early; expected {wanted}.")
        return DependsFault(
            f"Unexpected {shown(token.text)} at character {token.at + 1} of `depends`; "
            f"expected {wanted}."
        )

    def either(self, depth: int) -> When:
        terms = [self.both(depth)]
        while self.take("||"):
            terms.append(self.both(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def both(self, depth: int) -> When:
        terms = [self.unary(depth)]
        while self.take("&&"):
            terms.append(self.unary(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def unary(self, depth: int) -> When:
        if depth > MAX_NESTING:
            raise DependsFault(
                f"`depends` is nested deeper than {MAX_NESTING} levels at character "
                f"{self.now.at + 1}."
            )
        if self.take("!"):
            return Not(self.unary(depth + 1))
        if self.take("("):
            inner = self.either(depth + 1)
            if not self.take(")"):
                raise self.unexpected("`)`")
            return inner
        return self.ref()

    def ref(self) -> Ref:
        name = self.now
        if name.kind not in ("name", "quoted"):
            raise self.unexpected("the name of a block")
        self.position += 1
        if not self.take("."):
            return Ref(name.text)
        word = self.now
        if word.kind not in ("name", "quoted"):
            raise self.unexpected(f"a status after {shown(name.text + '.')}")
        self.position += 1
        ports = self.ports(name.text)
        if word.text in ports:
            return Ref(name.text, TAKEN, word.text)
        if word.kind == "name":
            status = word.text.upper()
            outcomes = STATUSES.get(_ALIASES.get(status, status))
            if outcomes is not None:
                return Ref(name.text, outcomes)
        known = [*STATUSES, *ports]
        raise DependsFault(
            f"{shown(word.text)} at character {word.at + 1} of `depends` is no status of "
            f"{shown(name.text)}; it is one of {', '.join(known)}."
        )
