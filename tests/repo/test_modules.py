"""Size, names and leftovers of every Python file."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import Module

VAGUE_CLASS = re.compile(r"(Manager|Helper|Util|Utils|Impl|Misc|Common)$|^Base[A-Z]|Base$")
VAGUE_MODULE = re.compile(r"(^|_)(utils?|helpers?|common|misc|base|impl|manager)$")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP)\b")


def names(found: Iterable[str]) -> str:
    return "\n".join(found)


def test_no_module_is_longer_than_500_lines(modules: list[Module]) -> None:
    long = [f"{m.path}: {m.lines}" for m in modules if m.in_package and m.lines > 500]
    assert not long, names(long)


def test_few_modules_are_longer_than_300_lines(modules: list[Module]) -> None:
    engine = [m for m in modules if m.in_package]
    long = [f"{m.path}: {m.lines}" for m in engine if m.lines > 300]
    assert len(long) * 10 <= len(engine), names(long)


def test_no_file_of_tests_or_benchmarks_is_longer_than_800_lines(modules: list[Module]) -> None:
    long = [f"{m.path}: {m.lines}" for m in modules if not m.in_package and m.lines > 800]
    assert not long, names(long)


def test_no_module_has_a_name_that_says_nothing(modules: list[Module]) -> None:
    vague = [
        m.path
        for m in modules
        if any(VAGUE_MODULE.search(part) for part in m.path.removesuffix(".py").split("/"))
    ]
    assert not vague, names(vague)


def test_no_class_has_a_name_that_says_nothing(modules: list[Module]) -> None:
    vague = [
        f"{m.path}:{node.lineno} {node.name}"
        for m in modules
        for node in ast.walk(m.tree)
        if isinstance(node, ast.ClassDef) and VAGUE_CLASS.search(node.name)
    ]
    assert not vague, names(vague)


def test_nothing_is_left_unfinished(modules: list[Module]) -> None:
    left = [
        f"{m.path}:{number} {line.strip()}"
        for m in modules
        if not m.path.startswith("tests/repo/")
        for number, line in enumerate(m.text.splitlines(), 1)
        if UNFINISHED.search(line) or re.search(r"raise NotImplementedError", line)
    ]
    assert not left, names(left)


def test_every_module_says_what_it_is(modules: list[Module]) -> None:
    silent = [m.path for m in modules if m.in_package and not ast.get_docstring(m.tree)]
    assert not silent, names(silent)


def test_package_files_hold_a_docstring_and_at_most_re_exports(modules: list[Module]) -> None:
    """Only permaflow/ may re-export; the engine's `__init__.py` files hold a docstring alone."""
    busy = [
        m.path
        for m in modules
        if m.in_package
        and m.path.endswith("/__init__.py")
        and any(not _allowed(node, m.path) for node in m.tree.body[1:])
    ]
    assert not busy, names(busy)


def _allowed(node: ast.stmt, path: str) -> bool:
    exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    return path.startswith("permaflow/") and (isinstance(node, ast.ImportFrom) or exports)
