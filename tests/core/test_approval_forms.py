"""Forms of approvals as pages ask them: which properties, and what their texts mean."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.gateway.approval_forms import read_form


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "7", "7"),
        ({"type": "string"}, "a\r\nb", "a\nb"),
        ({"type": "integer"}, " -7 ", -7),
        ({"type": "integer"}, "18446744073709551615", 2**64 - 1),
        ({"type": "integer"}, "18446744073709551616", "18446744073709551616"),
        ({"type": "integer"}, "seven", "seven"),
        ({"type": "number"}, "007", 7),
        ({"type": "number"}, ".5", 0.5),
        ({"type": "number"}, "1e400", "1e400"),
        ({"type": "number"}, "nan", "nan"),
        ({"type": "number"}, "٣", "٣"),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "on", "on"),
        ({"enum": [1, None, "x"]}, "1", 1),
        ({"enum": [1, None, "x"]}, "null", None),
        ({"enum": [1, None, "x"]}, "2", "2"),
    ],
)
def test_a_text_becomes_a_value_of_its_type_or_stays_a_text(
    schema: Any, text: str, value: Any
) -> None:
    found = read_form({"properties": {"a/b": schema}}, {"a/b": text}).data()["a/b"]
    assert (found, type(found)) == (value, type(value))


def test_what_is_left_empty_is_left_out_and_missed_where_it_is_required() -> None:
    properties = {"a/b": {"type": "string"}, "c": {"enum": ["", "d"]}, "e": {"type": "integer"}}
    form = read_form({"properties": properties, "required": ["a/b", "c"]}, {})
    assert form.data() == {"c": ""}
    assert [problem.pointer for problem in form.missing()] == ["/data/a~1b"]


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "array"},
        {"type": ["string", "null"]},
        {"enum": []},
        {"enum": [[]]},
        {"enum": [1, "1"]},
    ],
)
def test_a_property_that_no_text_answers_is_not_asked(schema: Any) -> None:
    form = read_form({"properties": {"a": schema}, "required": ["a", "b"]})
    assert (form.fields, form.beyond) == ((), ("a", "b"))


def test_a_page_begins_with_the_defaults() -> None:
    properties = {
        "a": {"type": "integer", "default": 3},
        "b": {"type": "boolean", "default": False},
        "c": {"type": "string", "default": None},
    }
    form = read_form({"properties": properties})
    assert [form.text(each) for each in form.fields] == ["3", "false", ""]
