"""What the tests of the repository itself share: where it is and which Python it holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("permaflow", "pipeline", "stages", "specs", "connectors")
FOLDERS = (*PACKAGES, "tests", "bench", "docs", "examples", "deploy")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: `path` is relative to the checkout, with forward slashes."""

    path: str
    text: str

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def in_package(self) -> bool:
        return self.path.partition("/")[0] in PACKAGES


def _modules() -> Iterator[Module]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT)
            if "node_modules" not in path.parts:
                yield Module(path.as_posix(), file.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def packages() -> tuple[str, ...]:
    """The five packages of the wheel."""
    return PACKAGES


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """Every Python file of the project."""
    return list(_modules())
