"""A peer's own environment: made from the pins in versions/, and again when they change."""

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.peers.process import Processes
from bench.peers.workload import PeerError

HERE = Path(__file__).parent
INSTALL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Home:
    """`<root>/<peer>`: the environment, the logs, and data that lasts for one measurement."""

    path: Path

    @classmethod
    def below(cls, root: Path, peer: str) -> Self:
        return cls(root.absolute() / peer)

    @property
    def python(self) -> Path:
        return self.path / "venv" / "bin" / "python"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def script(self, name: str) -> Path:
        """A program that a package put beside the interpreter."""
        return self.python.parent / name

    def fresh_data(self) -> Path:
        """An empty directory for the servers of one measurement."""
        self.clear_data()
        (self.path / "data").mkdir(parents=True)
        return self.path / "data"

    def clear_data(self) -> None:
        shutil.rmtree(self.path / "data", ignore_errors=True)


def app(name: str) -> Path:
    """Code that runs inside a peer's environment: by path, so nothing here shadows a library."""
    return HERE / "apps" / name


def pinned(peer: str) -> dict[str, str]:
    """Package → version, as written in versions/."""
    requirements, manifest = _pins(peer)
    pins: dict[str, str] = {}
    if requirements.exists():
        lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
        for line in filter(None, lines):
            name, _, version = line.partition("==")
            pins[name] = version
    if manifest.exists():
        pins.update(json.loads(manifest.read_text())["dependencies"])
    return pins


async def environment(peer: str, root: Path) -> Home:
    """Installs what versions/ pins for `peer`, with the ordinary clients of its registries."""
    home = Home.below(root, peer)
    requirements, manifest = _pins(peer)
    present = [path for path in (requirements, manifest) if path.exists()]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in present)).hexdigest()
    stamp = home.path / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return home
    shutil.rmtree(home.path, ignore_errors=True)
    home.path.mkdir(parents=True)
    async with Processes(home.logs) as processes:
        if requirements.exists():
            venv = [sys.executable, "-m", "venv", home.path / "venv"]
            await processes.run(f"{peer}-venv", venv, INSTALL_SECONDS)
            pip = [home.python, "-m", "pip", "install", "--disable-pip-version-check"]
            await processes.run(f"{peer}-pip", [*pip, "-r", requirements], INSTALL_SECONDS)
        if manifest.exists():
            npm = shutil.which("npm")
            if npm is None:
                raise PeerError("npm is needed to install it; install Node 20 or newer")
            shutil.copy(manifest, home.path / "package.json")
            quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
            await processes.run(
                f"{peer}-npm", [npm, "install", *quiet], INSTALL_SECONDS, cwd=home.path
            )
    stamp.write_text(wanted)
    return home


def _pins(peer: str) -> tuple[Path, Path]:
    return HERE / "versions" / f"{peer}.txt", HERE / "versions" / f"{peer}.json"
