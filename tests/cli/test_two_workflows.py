"""The examples of the tutorial, played as the page says, with what the page says comes of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "two-workflows.md"
PAIR = re.compile(r"^```sh\n(.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pairs() -> list[tuple[str, str]]:
    return PAIR.findall(PAGE.read_text(encoding="utf-8"))


def play(command: str, folder: Path) -> str:
    """What the command prints, in a terminal wide enough for it."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "COLUMNS": "120",
        "PERMAFLOW_DATA_DIR": str(folder),
    }
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def test_the_page_shows_both_examples_each_way() -> None:
    assert len(pairs()) == 4


@pytest.mark.parametrize("number", range(4))
def test_the_example_does_what_the_page_shows(number: int, tmp_path: Path) -> None:
    command, shown = pairs()[number]
    assert play(command, tmp_path) == shown
