"""The page of acceptance names tests that exist, and leaves no row out."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Module

ROW = re.compile(r"^\| ([AGHTWX]\d+.*?) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
SPAN = re.compile(r"([AGHTWX])(\d+)(?: to \1(\d+))?")
# What is promised so far.
PROMISED = {
    "A": [*range(1, 18), *range(20, 72), *range(75, 79), *range(80, 100)],
    "G": [*range(10, 23), *range(60, 65), *range(70, 75)],
    "H": [*range(50, 61)],
    "T": [*range(30, 43)],
    "W": [*range(30, 36), *range(40, 46), *range(50, 73)],
    "X": [1, 2, 3, 4, 5, 9, 11],
}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "acceptance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page: str) -> list[tuple[str, str, str]]:
    return ROW.findall(page)


def test_every_test_of_the_acceptance_page_exists_where_it_says(
    page: str, modules: list[Module]
) -> None:
    known = {
        (module.path.removeprefix("tests/"), node.name)
        for module in modules
        if module.path.startswith("tests/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = set(TEST.findall(page))
    assert len(named) > 50
    assert named - known == set()


def test_every_row_that_is_there_names_its_test(rows: list[tuple[str, str, str]]) -> None:
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)) > 100
    assert [name for name, _, tests in rows if not TEST.search(tests)] == []


def test_every_promised_row_is_proved_or_said_to_be_missing(
    page: str, rows: list[tuple[str, str, str]]
) -> None:
    told: set[tuple[str, int]] = set()
    missing = page[page.index("## Not there yet") :]
    lines = re.findall(r"^\| (.+?) \|", missing, re.MULTILINE)
    for line in (*(name for name, _, _ in rows), *lines):
        for kind, first, last in SPAN.findall(line):
            told |= {(kind, number) for number in range(int(first), int(last or first) + 1)}
    wanted = {(kind, number) for kind, numbers in PROMISED.items() for number in numbers}
    assert sorted(wanted - told) == []
