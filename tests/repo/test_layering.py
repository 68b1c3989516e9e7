"""Who may import whom: the contracts of pyproject.toml, and what they cannot say."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

VERTICES = ("ingest", "orchestrator", "runner", "completion", "clock", "gateway")


@pytest.fixture(scope="module")
def graph(packages: tuple[str, ...]) -> grimp.ImportGraph:
    return grimp.build_graph(
        *packages,
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


def test_every_import_contract_is_kept(root: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run(
        [linter, "--no-logo", "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_no_vertex_imports_another(graph: grimp.ImportGraph) -> None:
    present = [f"pipeline.{name}" for name in VERTICES if f"pipeline.{name}" in graph.modules]
    chains = [
        " → ".join(chain)
        for importer, imported in itertools.permutations(present, 2)
        if (chain := graph.find_shortest_chain(importer, imported, as_packages=True))
    ]
    assert present
    assert not chains


def test_the_core_imports_only_the_standard_library_and_the_contract(
    graph: grimp.ImportGraph,
) -> None:
    core = {"pipeline.core", *graph.find_descendants("pipeline.core")}
    foreign = [
        f"{module} imports {imported}"
        for module in sorted(core)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if imported not in core
        and (top := imported.partition(".")[0]) != "permaflow"
        and top not in sys.stdlib_module_names
    ]
    assert not foreign
