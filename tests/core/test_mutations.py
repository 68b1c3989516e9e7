"""The properties find every bug that is planted in the core."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.core.mutants import BUGS, ROOT

WORKERS = 2


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """Bug → how it was found. The hunts run side by side, each bug in a process of its own."""
    names = [bug.name for bug in BUGS]
    hunts = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.core.mutants", *names[worker::WORKERS]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(WORKERS)
    ]
    lines: list[str] = []
    for hunt in hunts:
        output, _ = hunt.communicate(timeout=900)
        lines += output.splitlines()
    return dict(json.loads(line) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", [bug.name for bug in BUGS])
def test_the_properties_find(found: dict[str, str], name: str) -> None:
    assert found[name] not in ("gone", "survived", "survived: no end")


def test_no_bug_is_planted_twice() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert len({(bug.module, bug.old, bug.new) for bug in BUGS}) == len(BUGS)


@pytest.mark.slow
def test_the_hunt_finds_nothing_in_the_core_as_it_is() -> None:
    command = [sys.executable, "-c", "from tests.core.mutants import hunt; hunt(300)"]
    hunt = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert hunt.returncode == 0, hunt.stderr[-2_000:]
