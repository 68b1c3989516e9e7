"""The words of an expression.

CEL's own, with three additions that JSON data needs: names may hold `$` and `@` (`step.$id`), may
be letters of any script, and a number after a dot is an index (`step.0`). No word is reserved
except `true`, `false`, `null` and `in`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from permaflow.plan import Json
from permaflow.values import HIGHEST

MAX_DIGITS = 400


class SyntaxFault(Exception):
    """An expression is none; `at` is the character (from 0) where it went wrong."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


class Token(NamedTuple):
    """`kind` is name, value, op or end; `value` is that of a number or string."""

    kind: str
    text: str
    at: int
    value: Json = None

    @property
    def end(self) -> int:
        return self.at + len(self.text)


_SPACE = re.compile(r"(?:\s+|//[^\n]*)+")
_INDEX = re.compile(r"\d{1,9}")
_TOKEN = re.compile(
    r"""
    (?P<string>[rR]?(?:"{3}(?:[^\\]|\\.)*?"{3}|'{3}(?:[^\\]|\\.)*?'{3}
                      |"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)[uU]?
    |(?P<name>(?:[^\W\d]|[$@])[\w$@]*)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_RAW = re.compile(r"""[rR]?("{3}|'{3}|"|')""")
_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|[xX]([0-9a-fA-F]{2})|([0-3][0-7]{2})|(.))",
    re.DOTALL,
)
_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_BRACKETS = {")": "(", "]": "[", "}": "{"}


def tokenize(text: str) -> list[Token]:
    """All tokens, the last of kind `end`. Raises `SyntaxFault`."""
    tokens, end = _read(text, 0, enclosed=False)
    tokens.append(Token("end", "", end))
    return tokens


def closing(text: str, start: int) -> int | None:
    """Where the `}}` stands that closes an expression which begins at `start`.

    None if there is none. Raises `SyntaxFault` for what is no word of an expression.
    """
    _, end = _read(text, start, enclosed=True)
    return end if text.startswith("}}", end) else None


def _read(text: str, at: int, *, enclosed: bool) -> tuple[list[Token], int]:
    tokens: list[Token] = []
    open_brackets: list[str] = []
    while True:
        if space := _SPACE.match(text, at):
            at = space.end()
        if at >= len(text):
            return tokens, at
        if enclosed and not open_brackets and text.startswith("}}", at):
            return tokens, at
        token = _token(text, at, bool(tokens) and tokens[-1].text == ".")
        if token.kind == "op":
            if token.text in "([{":
                open_brackets.append(token.text)
            elif token.text in _BRACKETS and open_brackets:
                open_brackets.pop()
        tokens.append(token)
        at = token.end


def _token(text: str, at: int, after_dot: bool) -> Token:
    if after_dot and (index := _INDEX.match(text, at)):
        return Token("name", index.group(), at)
    match = _TOKEN.match(text, at)
    if match is None:
        raise SyntaxFault(at, _unexpected(text, at))
    said = match.group()
    match match.lastgroup:
        case "string":
            return Token("value", said, at, _string(said, at))
        case "float":
            return Token("value", said, at, _float(said, at))
        case "int":
            return Token("value", said, at, _whole(match.group("int"), at))
        case "op":
            return Token("op", said, at)
        case _:
            return Token("op" if said == "in" else "name", said, at)


def _unexpected(text: str, at: int) -> str:
    match text[at]:
        case '"' | "'":
            return f"the string that begins with {text[at]} is never closed"
        case "=":
            return "`=` is no operator; write `==` to compare"
        case "&" | "|":
            return f"`{text[at]}` is no operator; write `{text[at] * 2}`"
        case "`":
            return "unexpected backquote; write strings in double quotes"
    return f"unexpected `{text[at]}`"


def _string(said: str, at: int) -> str:
    quote = _RAW.match(said)
    assert quote is not None
    inner = said[quote.end() : len(said) - len(quote.group(1))]
    if said[0] in "rR" or "\\" not in inner:
        return inner

    def character(match: re.Match[str]) -> str:
        short, long, byte, octal, other = match.groups()
        if other is not None:
            if other not in _SIMPLE:
                raise SyntaxFault(at, f"`\\{other}` is no escape; write `\\\\` for a backslash")
            return _SIMPLE[other]
        code = int(octal, 8) if octal else int(short or long or byte, 16)
        if code == 0 or 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise SyntaxFault(at, f"`{match.group()}` is no character that text may hold")
        return chr(code)

    return _ESCAPE.sub(character, inner)


def _whole(digits: str, at: int) -> int:
    if len(digits) > 30:
        raise SyntaxFault(at, "a whole number must fit into 64 bits")
    number = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits)
    if number > HIGHEST:
        raise SyntaxFault(at, "a whole number must fit into 64 bits")
    return number


def _float(digits: str, at: int) -> float:
    number = float(digits) if len(digits) <= MAX_DIGITS else float("inf")
    if number == float("inf"):
        raise SyntaxFault(at, "a number is too large for a double")
    return number
