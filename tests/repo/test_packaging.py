"""What is shipped: the five packages and nothing else, and they are found as ours."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

SHIPPED = {".py", ".sql", ".typed", ".json", ".lua", ".js", ".template"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(root)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        yield archive


def sources(folder: Path, packages: tuple[str, ...]) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for package in packages
        for file in (folder / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_wheel_holds_the_five_packages_whole(
    root: Path, packages: tuple[str, ...], wheel: zipfile.ZipFile
) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == sources(root, packages)


def test_the_packages_hold_only_what_belongs_in_a_wheel(
    root: Path, packages: tuple[str, ...]
) -> None:
    strange = {name for name in sources(root, packages) if Path(name).suffix not in SHIPPED}
    assert not strange


def test_the_wheel_starts_the_engine_through_one_command_and_carries_the_licence(
    wheel: zipfile.ZipFile,
) -> None:
    info = {name.partition(".dist-info/")[2]: name for name in wheel.namelist()}
    entry_points = wheel.read(info["entry_points.txt"]).decode()
    assert entry_points.split() == [
        "[console_scripts]",
        "permaflow",
        "=",
        "pipeline.cli.main:main",
    ]
    assert "licenses/LICENSE" in info


def test_a_wheel_built_from_the_source_archive_is_the_same(
    root: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    (archive,) = SdistBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (built,) = WheelBuilder(str(unpacked)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as again:
        assert set(again.namelist()) == set(wheel.namelist())


def test_every_package_is_imported_from_this_checkout(
    root: Path, packages: tuple[str, ...]
) -> None:
    """Their names are common words: a foreign `pipeline` on the path must not be taken for ours."""
    found = {name: importlib.import_module(name).__file__ for name in packages}
    assert found == {name: str(root / name / "__init__.py") for name in packages}


def test_the_command_takes_no_package_from_the_folder_it_is_started_in(
    packages: tuple[str, ...], tmp_path: Path
) -> None:
    for name in packages:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a foreign package')")
    command = Path(sys.executable).with_name("permaflow")
    answer = subprocess.run(
        [command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "a foreign package" not in answer.stdout + answer.stderr
