"""Named queries: every one is used, and a wrong file is refused when it is loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pipeline.store.queries import QUERIES, parse

if TYPE_CHECKING:
    from conftest import Module

USE = re.compile(r"""\bquery\(\s*["']([a-z_.]+)["']\s*\)""")


def test_every_query_is_used_and_every_used_query_is_there(modules: list[Module]) -> None:
    used = {
        name
        for module in modules
        if module.in_package
        for name in USE.findall(module.text)
        if module.path != "pipeline/store/queries.py"
    }
    assert used == set(QUERIES)


def test_a_query_is_its_statement_without_the_head() -> None:
    text = (
        "-- name: get\n-- One thing.\nselect 1\nfrom x;\n\n-- name: put\n-- Another.\nselect 2;\n"
    )
    assert parse(text, "things") == {"get": "select 1\nfrom x", "put": "select 2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "-- name: a\n-- It.\nselect 1;\n-- name: a\n-- It.\nselect 2;\n",
            "`a` stands there twice",
        ),
        ("-- name: a\nselect 1;\n", "`a` needs a line of purpose"),
        ("-- name: a\n-- It.\n", "and a statement"),
        ("-- name: A b\n-- It.\nselect 1;\n", "`A b` is not a name"),
        ("select 1;\n-- name: a\n-- It.\nselect 1;\n", "text before the first"),
    ],
)
def test_a_file_that_is_not_in_order_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text, "things")
