"""Pointers find their line and column in any JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.values import escape
from pipeline.cli.positions import WIDTH, excerpt, position

TEXT = """{
  "a/b": [10, {"c~d": "x\\"]}"}],
  "twice": 1,
  "twice": [true]
}"""


@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("", (1, 1)),
        ("/a~1b", (2, 10)),
        ("/a~1b/0", (2, 11)),
        ("/a~1b/1/c~0d", (2, 23)),
        ("/twice/0", (4, 13)),
        ("/nowhere", (1, 1)),
        ("/a~1b/1/nowhere/deeper", (2, 15)),
        ("/a~1b/0/not-an-object", (2, 11)),
    ],
)
def test_a_pointer_finds_its_place(pointer: str, place: tuple[int, int]) -> None:
    assert position(TEXT, pointer) == place


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


def places(value: Any, pointer: str = "") -> list[tuple[str, Any]]:
    found = [(pointer, value)]
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in pairs:
            found += places(each, f"{pointer}/{escape(str(name))}")
    return found


@given(values, st.sampled_from([None, 0, 2]))
def test_at_every_place_stands_the_value_that_the_pointer_names(
    value: Any, indent: int | None
) -> None:
    text = json.dumps(value, indent=indent)
    for pointer, each in places(value):
        line, column = position(text, pointer)
        start = sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1
        assert json.JSONDecoder().raw_decode(text, start)[0] == each


NESTED = r"""{
  "name": "é \"x\"",
  "steps": "[{\"action\": \"Note.create\", \"text\": \"a\\n\u00e9\ud83d\ude00b\"}]"
}"""


def text_at(pointer: str, at: int | None = None) -> str:
    line, column = position(NESTED, pointer, at)
    return NESTED.splitlines()[line - 1][column - 1 :]


def test_a_character_of_a_string_is_found_whatever_its_letters_are_written_as() -> None:
    assert text_at("/name", 0).startswith("é")
    assert text_at("/name", 2).startswith('\\"x')
    assert text_at("/name", 3).startswith('x\\"')
    assert text_at("/name", 99).startswith('"')


def test_a_pointer_goes_on_into_json_in_a_string() -> None:
    assert text_at("/steps/0").startswith("{")
    assert text_at("/steps/0/action").startswith('\\"Note.create')
    assert text_at("/steps/0/action", 5).startswith("create")
    assert text_at("/steps/0/text", 4).startswith('b\\"')
    assert text_at("/steps/9").startswith("[")
    assert text_at("/name/0").startswith('"é')


@given(st.text(max_size=12), st.integers(0, 12), st.booleans())
def test_every_character_of_every_string_is_found(text: str, at: int, ascii_only: bool) -> None:
    whole = json.dumps({"a": ["x", text]}, ensure_ascii=ascii_only)
    line, column = position(whole, "/a/1", at)
    assert line == 1
    rest = json.loads('"' + whole[column - 1 : whole.rindex('"') + 1])
    assert rest == text[at:]


def test_an_excerpt_shows_the_line_with_a_caret_below_the_column() -> None:
    text = '{\n\t"a": 1,\n}'
    said, caret = excerpt(text, 2, 7)
    assert said == '    2 | \t"a": 1,'
    assert said[caret.index("^")] == "1"
    assert caret.startswith("      | \t")


def test_an_excerpt_of_a_long_line_is_what_stands_around() -> None:
    text = "".join(f"{number:04}" for number in range(1_000))
    for column in (1, 60, 2_001, 3_997, 4_000):
        said, caret = excerpt(text, 1, column)
        assert said[caret.index("^")] == text[column - 1]
        assert len(said) <= WIDTH + 10
    assert excerpt("", 1, 1) == ("    1 | ", "      | ^")
