"""Pointers find their line and column in any JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.values import escape
from pipeline.cli.positions import position

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
