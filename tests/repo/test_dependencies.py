"""What is installed: every import declared, every declaration pinned, every pin checked."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from conftest import Module

IMAGE = ("deploy/requirements.txt", "deploy/build.txt")
PINNED = ("constraints.txt", *IMAGE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def declared(project: dict[str, Any]) -> list[Requirement]:
    """The requirements of the package, its extras and the developers."""
    metadata = project["project"]
    extras = metadata["optional-dependencies"]
    groups = project["dependency-groups"]
    texts = [
        *metadata["dependencies"],
        *(text for name in extras if name != "all" for text in extras[name]),
        *(text for group in groups.values() for text in group if isinstance(text, str)),
    ]
    return [Requirement(text) for text in texts]


def pins(path: Path) -> Iterator[tuple[Requirement, str]]:
    """Each requirement of a file with the lines that belong to it."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", path.read_text(encoding="utf-8").strip()):
        yield Requirement(block.split("\\")[0].strip()), block


@pytest.mark.parametrize("name", PINNED)
def test_every_pin_is_one_version_with_hashes(root: Path, name: str) -> None:
    loose = [
        str(requirement)
        for requirement, block in pins(root / name)
        if not re.fullmatch(r"==[^*]+", str(requirement.specifier)) or not HASH.search(block)
    ]
    assert not loose


@pytest.mark.parametrize("name", PINNED)
def test_no_pin_says_where_packages_come_from(root: Path, name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    assert not re.findall(r"\w+://\S*|\w+ @ \S+|--(?:extra-)?index-url\b.*|--find-links\b.*", text)


def test_every_declared_dependency_is_pinned_within_its_range(
    root: Path, declared: list[Requirement]
) -> None:
    pinned = {
        canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
        for requirement, _ in pins(root / "constraints.txt")
    }
    wrong = [
        f"{want}: pinned {version}"
        for want in declared
        if not (version := pinned.get(canonicalize_name(want.name)))
        or not want.specifier.contains(version, prereleases=True)
    ]
    assert not wrong, "run `make constraints`: " + "; ".join(wrong)


@pytest.mark.parametrize("name", IMAGE)
def test_the_image_installs_the_versions_that_are_tested(root: Path, name: str) -> None:
    tested = {(pin.name, str(pin.specifier)) for pin, _ in pins(root / "constraints.txt")}
    assert {(pin.name, str(pin.specifier)) for pin, _ in pins(root / name)} <= tested


def test_the_image_has_whatever_a_document_may_ask_for(root: Path, project: dict[str, Any]) -> None:
    """Every extra but the embedded servers, which have containers of their own."""
    extras = project["project"]["optional-dependencies"]
    wanted = {
        canonicalize_name(Requirement(text).name)
        for name in extras.keys() - {"all", "embedded"}
        for text in extras[name]
    }
    there = {canonicalize_name(pin.name) for pin, _ in pins(root / "deploy/requirements.txt")}
    assert wanted <= there, "name the extra in the Makefile's `constraints`, and run it"


def test_everything_installs_every_extra(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    (everything,) = (Requirement(text) for text in extras["all"])
    assert everything.name == "permaflow"
    assert everything.extras == set(extras) - {"all"}


def test_every_import_is_declared(modules: list[Module], declared: list[Requirement]) -> None:
    names = {canonicalize_name(name) for want in declared for name in provided(want)}
    providers = packages_distributions()
    undeclared = {
        f"{module.path} imports {top}"
        for module in modules
        for top in imported(module)
        if top in providers
        and "permaflow" not in providers[top]
        and not names & {canonicalize_name(name) for name in providers[top]}
    }
    assert not undeclared, "declare them in pyproject.toml: " + "; ".join(sorted(undeclared))


def provided(declared: Requirement) -> Iterator[str]:
    """The distributions that a declaration names: itself, and what its extras stand for."""
    yield declared.name
    for text in (requires(declared.name) or []) if declared.extras else []:
        brought = Requirement(text)
        if brought.marker and any(brought.marker.evaluate({"extra": e}) for e in declared.extras):
            yield brought.name


def imported(module: Module) -> Iterator[str]:
    """The top-level names that a module imports."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name.partition(".")[0] for alias in aliases)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0]
