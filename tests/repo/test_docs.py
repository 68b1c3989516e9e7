"""What the documentation shows is so: documents compile, code runs, names exist, pages are found.

The quickstart is run by tests/e2e/test_docs.py.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import typer

from permaflow.task_types import TaskTypeRegistry
from pipeline import builtins
from pipeline.cli.app import app
from pipeline.core.entries import TAGS
from pipeline.settings import Settings
from pipeline.store.workflows import TRANSITIONS
from specs.comparing import OPERATORS
from specs.depends import STATUSES
from specs.dialects import compile_document
from specs.triggers import KINDS
from specs.work import INLINE

if TYPE_CHECKING:
    from conftest import Module

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^(?:<!-- ([^\n]+?) -->\n)?```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NEW_TYPE = "how-to/add-a-task-type.md"


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|``.+?``|`[^`\n]*`", "", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def docs(root: Path) -> dict[str, str]:
    """Every page of docs/ by its path in there."""
    folder = root / "docs"
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted(folder.rglob("*.md"))
    }


def blocks(docs: dict[str, str], language: str) -> Iterator[tuple[str, str, str]]:
    """Page, mark and text of every block in a language."""
    for page, text in docs.items():
        for mark, found, body in BLOCK.findall(text):
            if found == language:
                yield page, mark, body


def module_of(name: str, path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A block of code as the module that the page says it is."""
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sms(
    docs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ModuleType, ModuleType]:
    """The task type of the guide, and its tests."""
    files = {mark: body for page, mark, body in blocks(docs, "python") if page == NEW_TYPE}
    return (
        module_of("stages.sms", tmp_path / "sms.py", files["file: sms.py"], monkeypatch),
        module_of("test_sms", tmp_path / "test_sms.py", files["file: test_sms.py"], monkeypatch),
    )


def registry(*more: Any) -> TaskTypeRegistry:
    types = builtins.task_types(Settings(_env_file=None))  # type: ignore[call-arg]
    for each in more:
        types.add(each)
    return types


def test_every_page_is_found_from_the_index(docs: dict[str, str]) -> None:
    seen, todo = {"index.md"}, ["index.md"]
    while todo:
        page = Path(todo.pop())
        for target in LINK.findall(without_code(docs[page.as_posix()])):
            path = target.partition("#")[0]
            if path and "://" not in path and path.endswith(".md"):
                found = Path("/docs", page.parent, path).as_posix()
                resolved = str(Path(found).resolve()).removeprefix("/docs/")
                if resolved in docs and resolved not in seen:
                    seen.add(resolved)
                    todo.append(resolved)
    assert docs.keys() - seen == set()


def test_every_link_to_a_heading_leads_to_one(root: Path) -> None:
    def anchors(path: Path) -> set[str]:
        found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in found}

    dead = []
    for page in [*(root / "docs").rglob("*.md"), root / "README.md"]:
        for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
            path, mark, heading = target.partition("#")
            there = page if not path else page.parent / path
            if mark and "://" not in target and heading not in anchors(there):
                dead.append(f"{page.name}: {target}")
    assert not dead


def test_every_workflow_that_is_shown_compiles(
    docs: dict[str, str], sms: tuple[ModuleType, ModuleType]
) -> None:
    types = registry(sms[0].task_type)
    count = 0
    for page, _, body in blocks(docs, "json"):
        document = json.loads(body)
        document = document.get("definition", document)
        assert {"nodes", "dag", "steps"} & document.keys(), page
        compiled = compile_document(document, types)
        assert compiled.problems == (), f"{page}: {compiled.problems}"
        assert compiled.plan is not None
        count += 1
    assert count >= 10


def test_all_python_that_is_shown_is_python(docs: dict[str, str]) -> None:
    found = list(blocks(docs, "python"))
    assert len(found) >= 4
    for _, _, body in found:
        ast.parse(body)


def test_the_task_type_of_the_guide_passes_the_tests_of_the_guide(
    sms: tuple[ModuleType, ModuleType],
) -> None:
    tests = [each for name, each in vars(sms[1]).items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        if inspect.iscoroutinefunction(test):
            asyncio.run(test())
        else:
            test()


def test_the_line_of_the_guide_registers_the_task_type(
    docs: dict[str, str], sms: tuple[ModuleType, ModuleType]
) -> None:
    (line,) = [
        body
        for page, mark, body in blocks(docs, "python")
        if page == NEW_TYPE and mark == "line of pipeline/builtins.py"
    ]
    types = TaskTypeRegistry(builtins.TASK_TYPES | ast.literal_eval(line))
    assert types.get("action_sms") is sms[0].task_type


def test_every_test_that_is_named_exists(docs: dict[str, str], modules: list[Module]) -> None:
    known = {
        node.name
        for module in modules
        if module.path.startswith("tests/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = {name for text in docs.values() for name in re.findall(r"`(test_\w+)`", text)}
    assert len(named) >= 10
    assert named - known == set()


def test_every_setting_that_is_named_exists(docs: dict[str, str], root: Path) -> None:
    known = {f"PERMAFLOW_{name.upper()}" for name in Settings.model_fields}
    known.add("PERMAFLOW_READY_FILE")
    pages = {**docs, "README.md": (root / "README.md").read_text(encoding="utf-8")}
    named = {name for text in pages.values() for name in re.findall(r"PERMAFLOW_[A-Z_]+", text)}
    assert named - known == set()


def test_every_command_that_is_shown_is_one(docs: dict[str, str], root: Path) -> None:
    pages = {**docs, "README.md": (root / "README.md").read_text(encoding="utf-8")}
    shown = [
        line[line.index("permaflow ") :]
        for _, _, body in blocks(pages, "sh")
        for line in body.splitlines()
        if re.match(r"(\w+=\S+ )*permaflow ", line)
    ]
    assert len(shown) > 20
    assert [line for line in shown if not is_command(line)] == []


def is_command(line: str) -> bool:
    """Whether the words lead to a command, and it has these options."""
    command: Any = typer.main.get_command(app)
    for word in line.partition("|")[0].split()[1:]:
        if hasattr(command, "commands"):
            if word not in command.commands:
                return False
            command = command.commands[word]
        elif word.startswith("--") and word not in {o for p in command.params for o in p.opts}:
            return False
    return not hasattr(command, "commands")


def named_in(text: str, heading: str) -> set[str]:
    """What stands in backticks in the first column of the tables under a heading."""
    part = text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| ([^|]+) \|", part, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_reference_of_documents_names_every_type_operator_and_status(
    docs: dict[str, str],
) -> None:
    text = docs["reference/documents.md"]
    assert named_in(text, "## Types of nodes") == {*KINDS, *INLINE}
    assert named_in(text, "## Conditions") == OPERATORS
    assert set(STATUSES) <= named_in(text, "## dag")
    assert [name for name in builtins.TASK_TYPES if f"`{name}`" not in text] == []


def test_the_states_that_are_drawn_are_those_of_the_code(docs: dict[str, str]) -> None:
    """The drawings come from watching the core: it must not have overlooked anything."""
    workflow, run, node = re.findall(
        r"```mermaid\n(.*?)```", docs["reference/states.md"], re.DOTALL
    )
    arrows = re.findall(r"^ +(\w+) --> (\w+)", workflow, re.MULTILINE)
    assert set(arrows) == {(a, b) for a, nexts in TRANSITIONS.items() for b in nexts}
    ends = set(re.findall(r"^ +(\w+) --> \[\*\]$", run, re.MULTILINE))
    assert ends == {"completed", "failed", "cancelled", "timed_out", "compensated"}
    reasons = {
        why for text in re.findall(r" : (.+)$", node, re.MULTILINE) for why in text.split(", ")
    }
    silent = {
        "started",
        "logged",
        "iterated",
        "iteration_failed",
        "cancel_requested",
        "compensating",
        "finished",
        "paused",
        "resumed",
        "reopened",
        "migrated",
        "continued",
        "kept",
    }
    assert reasons == set(TAGS.values()) - silent
