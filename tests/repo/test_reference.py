"""The reference pages say what the code says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from permaflow import errors
from pipeline.settings import Settings


def test_the_reference_pages_are_generated_from_this_code(root: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, root / "docs" / "generate.py", "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr


def test_every_setting_says_what_it_does() -> None:
    silent = [name for name, field in Settings.model_fields.items() if not field.description]
    assert not silent


def raised() -> list[type[errors.PermaflowError]]:
    everything = (getattr(errors, name) for name in dir(errors))
    return [e for e in everything if isinstance(e, type) and issubclass(e, errors.PermaflowError)]


def test_every_error_has_a_code_and_a_message_of_its_own() -> None:
    for values in ([e.code for e in raised()], [e.__doc__ for e in raised()]):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_every_error_stands_in_the_tree_of_its_module() -> None:
    tree = (errors.__doc__ or "").split()
    assert [e.__name__ for e in raised() if e.__name__ not in tree] == []
