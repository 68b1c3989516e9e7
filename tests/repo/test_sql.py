"""SQL lives in files: no statement stands in a Python string outside tests and examples."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Module

STATEMENT = re.compile(
    r"""\s*(--.*\n\s*)*(
          select\s+(.|\n)+?\bfrom\b | select\s+(pg_|set_config|nextval|now\(|\d|%)
        | with\s+\w+\s+as\s*\( | insert\s+into\s | update\s+\S+\s+(as\s+\w+\s+)?set\s
        | delete\s+from\s | merge\s+into\s | truncate\s | lock\s+table\s | vacuum\b
        | copy\s+\S+\s*(\(.*\)\s*)?(from|to)\s
        | (create|alter|drop)\s+(or\s+replace\s+|unique\s+)?
          (table|index|schema|database|role|user|function|view|type|extension|publication
          |system|policy)\s
        | (set|reset)\s+(local|session|role|search_path)\b
        | (listen|notify)\s+["{\w]+\s*(,|;|$)
    )""",
    re.IGNORECASE | re.VERBOSE,
)

EXCEPTIONS = {
    "pipeline/embedded/postgres.py": "makes the database before there is a store to load files",
}
"""Path → why its statements cannot stand in a file."""


def statements(module: Module) -> Iterator[tuple[int, str]]:
    """Line and start of every string that reads as SQL; docstrings are prose."""
    tree = module.tree
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose:
                pass
            case ast.JoinedStr(values=parts):
                text = "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
            case _:
                continue
        if STATEMENT.match(text):
            found.setdefault(node.lineno, " ".join(text.split())[:60])
    yield from found.items()


def guarded(modules: list[Module]) -> list[Module]:
    return [m for m in modules if not m.path.startswith(("tests/", "examples/"))]


def test_no_sql_stands_in_a_python_string(modules: list[Module]) -> None:
    found = [
        f"{module.path}:{line} {text}"
        for module in guarded(modules)
        if module.path not in EXCEPTIONS
        for line, text in statements(module)
    ]
    assert not found, "\n".join(found)


def test_every_exception_is_still_needed(modules: list[Module]) -> None:
    holding = {module.path for module in guarded(modules) if any(statements(module))}
    assert set(EXCEPTIONS) <= holding


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM run",
        "select 1",
        "\n    insert into run values (1)",
        "UPDATE permaflow.run SET status = 'x'",
        "WITH due AS (DELETE FROM timer RETURNING *) SELECT 1",
        "-- name\nDELETE FROM run",
        "CREATE UNIQUE INDEX x ON y (z)",
        "SET LOCAL ROLE gateway",
        "LISTEN permaflow",
    ],
)
def test_a_statement_is_recognised(text: str) -> None:
    assert STATEMENT.match(text)


@pytest.mark.parametrize(
    "text",
    [
        "Select a workflow and press Start.",
        "Set the timeout of a step.",
        "with the default",
        "update",
        "Delete the run first.",
        "created",
        "Notify the requester",
    ],
)
def test_prose_is_not_taken_for_a_statement(text: str) -> None:
    assert not STATEMENT.match(text)
