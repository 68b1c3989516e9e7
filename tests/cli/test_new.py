"""`permaflow new task-type`: what it writes can be installed, is found, and passes its own test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("permaflow")


def run(*arguments: object, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": path}
    command = [str(each) for each in arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that was just written."""
    folder = tmp_path_factory.mktemp("new")
    done = run(COMMAND, "new", "task-type", "sms/send", "--into", folder, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == [
        "pyproject.toml",
        "permaflow_sms_send.py",
        "tests/test_permaflow_sms_send.py",
    ]
    return Path(told["folder"])


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as an installer leaves it."""
    target = tmp_path_factory.mktemp("installed")
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = run(sys.executable, "-c", build, target, cwd=package)
    assert done.returncode == 0, done.stderr
    wheel = target / done.stdout.split()[-1]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    wheel.unlink()
    return target


def test_what_is_written_passes_its_own_test(package: Path, installed: Path) -> None:
    done = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package, path=installed
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_an_installation_finds_it_by_its_entry_point(installed: Path) -> None:
    shown = run(COMMAND, "catalogue", "show", "sms/send", "--json", cwd=installed, path=installed)
    assert shown.returncode == 0, shown.stderr
    block = json.loads(shown.stdout)
    assert (block["label"], block["category"]) == ("Sms send", "Sms")
    assert [field["key"] for field in block["fields"]] == ["url", "message"]


def test_its_test_fails_if_it_breaks_a_promise(package: Path, tmp_path: Path) -> None:
    """Without the key in its request, a step that is done twice would have its effect twice."""
    for path in package.rglob("*.*"):
        if path.suffix in (".py", ".toml"):
            copy = tmp_path / path.relative_to(package)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(path.read_text().replace('"Idempotency-Key": ctx.step_key', ""))
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 1
    assert "without ctx.step_key" in done.stdout


def test_what_is_written_is_in_style(package: Path) -> None:
    tool = Path(sys.executable).with_name
    settings = ("--isolated", "--line-length", "100")
    for words in (("check", "--select", "E,F,W,UP,B,RUF"), ("format", "--check")):
        done = run(tool("ruff"), *words, *settings, package, cwd=package)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Sms/Send", "sms/send/now", "../x", "a b", ""])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    done = run(COMMAND, "new", "task-type", name, cwd=tmp_path)
    assert done.returncode == 1
    assert "is no name for a task type" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(package: Path) -> None:
    done = run(COMMAND, "new", "task-type", "sms/send", "--into", package.parent, cwd=package)
    assert done.returncode == 1
    assert "exists already" in done.stderr
