"""The grammar of expressions: text to a tree.

Operators bind as in CEL, from loose to tight: `?:`, `||`, `&&`, comparisons and `in`, `+ -`,
`* / %`, `! -`, then members, indexes and calls. Chains of one level are one node, so that a long
sum is not a deep tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from permaflow.plan import Json
from specs.cel.tokens import SyntaxFault, Token, tokenize

MAX_CHARACTERS = 4_096
MAX_DEPTH = 40

MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "filter": (2,), "map": (2, 3)}


@dataclass(frozen=True, slots=True)
class Literal:
    at: int
    value: Json


@dataclass(frozen=True, slots=True)
class Name:
    """A root such as `trigger`, or a variable of a macro."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """`of.name`, and `of["name"]` with a literal; `name` is of digits alone in `of.0`."""

    at: int
    of: Tree
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    at: int
    of: Tree
    index: Tree


@dataclass(frozen=True, slots=True)
class Has:
    """`has(member)`"""

    at: int
    member: Member


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`; of `x.name(…)`, `x` is the first argument."""

    at: int
    name: str
    arguments: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Macro:
    """`of.kind(variable, parts…)`"""

    at: int
    kind: str
    of: Tree
    variable: str
    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Array:
    at: int
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Object:
    at: int
    members: tuple[tuple[Tree, Tree], ...]


@dataclass(frozen=True, slots=True)
class Unary:
    at: int
    op: str
    term: Tree


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of one level, from the left: `first op term op term …`; each with its place."""

    at: int
    first: Tree
    rest: tuple[tuple[str, int, Tree], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    at: int
    test: Tree
    yes: Tree
    no: Tree


Tree = (
    Literal | Name | Member | Index | Has | Call | Macro | Array | Object | Unary | Chain | Choice
)

_LEVELS = {
    "||": 0,
    "&&": 1,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), 2),
    **dict.fromkeys(("+", "-"), 3),
    **dict.fromkeys(("*", "/", "%"), 4),
}
"""Operator → how tightly it binds."""

_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}


def parse(text: str) -> Tree:
    """The tree of an expression. Raises `SyntaxFault`."""
    if len(text) > MAX_CHARACTERS:
        raise SyntaxFault(
            MAX_CHARACTERS, f"an expression may have {MAX_CHARACTERS:,} characters; split it"
        )
    parser = _Parser(tokenize(text))
    tree = parser.expression(0)
    token = parser.here
    if token.kind != "end":
        raise SyntaxFault(token.at, f"unexpected `{token.text}`{_hint(token)}")
    return tree


def _hint(token: Token) -> str:
    words = {"and": "&&", "or": "||", "not": "!"}
    return f"; write `{words[token.text]}`" if token.text in words else "; an operator is missing"


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0

    @property
    def here(self) -> Token:
        return self._tokens[self._next]

    def take(self, op: str) -> bool:
        """Goes past an operator, if it is the next token."""
        if self.here.kind == "op" and self.here.text == op:
            self._next += 1
            return True
        return False

    def expect(self, op: str, why: str) -> None:
        if not self.take(op):
            raise SyntaxFault(self.here.at, f"{_found(self.here)}; expected `{op}` {why}")

    def expression(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise SyntaxFault(
                self.here.at, f"an expression may be nested {MAX_DEPTH} deep; split it"
            )
        test = self.chain(0, depth)
        at = self.here.at
        if not self.take("?"):
            return test
        yes = self.expression(depth + 1)
        self.expect(":", "and what it is otherwise")
        return Choice(at, test, yes, self.expression(depth + 1))

    def chain(self, least: int, depth: int) -> Tree:
        """Operators that bind at least as tightly as `least`."""
        tree = self.unary(depth)
        while (level := self.level()) is not None and level >= least:
            rest: list[tuple[str, int, Tree]] = []
            while self.level() == level:
                token = self.here
                self._next += 1
                rest.append((token.text, token.at, self.chain(level + 1, depth)))
            tree = Chain(rest[0][1], tree, tuple(rest))
        return tree

    def level(self) -> int | None:
        return _LEVELS.get(self.here.text) if self.here.kind == "op" else None

    def unary(self, depth: int) -> Tree:
        token = self.here
        for op in ("!", "-"):
            if self.take(op):
                if depth > MAX_DEPTH:
                    raise SyntaxFault(token.at, f"too many `{op}` in a row")
                return Unary(token.at, op, self.unary(depth + 1))
        return self.member(depth)

    def member(self, depth: int) -> Tree:
        tree, links = self.primary(depth), 0
        while self.here.kind == "op" and self.here.text in (".", "["):
            links += 1
            if links > MAX_DEPTH:
                raise SyntaxFault(self.here.at, f"a path may have {MAX_DEPTH} members")
            at = self.here.at
            tree = self.dotted(tree, depth) if self.take(".") else self.indexed(tree, at, depth)
        return tree

    def dotted(self, of: Tree, depth: int) -> Tree:
        token = self.here
        if token.kind != "name":
            raise SyntaxFault(token.at, f"{_found(token)}; expected a name after the dot")
        self._next += 1
        if not self.take("("):
            return Member(token.at, of, token.text)
        arguments = self.listed(")", depth)
        if token.text in MACROS:
            return _macro(token, of, arguments)
        if isinstance(of, Name) and of.name == "math":
            return Call(of.at, f"math.{token.text}", tuple(arguments))
        return Call(token.at, token.text, (of, *arguments))

    def indexed(self, of: Tree, at: int, depth: int) -> Tree:
        self._next += 1
        index = self.expression(depth + 1)
        self.expect("]", "after the index")
        if isinstance(index, Literal):
            if type(index.value) is str:
                return Member(index.at, of, index.value)
            if type(index.value) is int:
                return Member(index.at, of, str(index.value))
        return Index(at, of, index)

    def primary(self, depth: int) -> Tree:
        token = self.here
        self._next += token.kind != "end"
        match token.kind, token.text:
            case "value", _:
                return Literal(token.at, token.value)
            case "name", ("true" | "false" | "null"):
                return Literal(token.at, _WORDS[token.text])
            case "name", _:
                if self.take("("):
                    return _call(token, self.listed(")", depth))
                return Name(token.at, token.text)
            case "op", "(":
                inner = self.expression(depth + 1)
                self.expect(")", "to close the parenthesis")
                return inner
            case "op", "[":
                return Array(token.at, tuple(self.listed("]", depth)))
            case "op", "{":
                return Object(token.at, tuple(self.members(depth)))
        raise SyntaxFault(token.at, f"{_found(token)}; expected a value")

    def listed(self, close: str, depth: int) -> list[Tree]:
        items: list[Tree] = []
        while not self.take(close):
            if items:
                self.expect(",", f"or `{close}`")
                if self.take(close):
                    break
            items.append(self.expression(depth + 1))
        return items

    def members(self, depth: int) -> list[tuple[Tree, Tree]]:
        found: list[tuple[Tree, Tree]] = []
        while not self.take("}"):
            if found:
                self.expect(",", "or `}`")
                if self.take("}"):
                    break
            name = self.expression(depth + 1)
            self.expect(":", "after the name of a member")
            found.append((name, self.expression(depth + 1)))
        return found


def _found(token: Token) -> str:
    return "the expression ends here" if token.kind == "end" else f"unexpected `{token.text}`"


def _call(token: Token, arguments: list[Tree]) -> Tree:
    if token.text != "has":
        return Call(token.at, token.text, tuple(arguments))
    if len(arguments) != 1 or not isinstance(arguments[0], Member):
        raise SyntaxFault(token.at, "`has` wants one member, as in `has(trigger.record.name)`")
    return Has(token.at, arguments[0])


def _macro(token: Token, of: Tree, arguments: list[Tree]) -> Tree:
    if len(arguments) not in MACROS[token.text] or not isinstance(arguments[0], Name):
        raise SyntaxFault(
            token.at,
            f"`{token.text}` wants a name for each item and what to do with it, as in "
            f"`trigger.items.{token.text}(item, item.price > 10)`",
        )
    return Macro(token.at, token.text, of, arguments[0].name, tuple(arguments[1:]))
